"""The life of ECS tasks: placed, pulled, running, stopped, with real processes in between.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-lifecycle-explanation.html
"""

from __future__ import annotations

import functools
import logging
import time
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import ec2, ecs_volumes
from cloudprovider.emulator.ecs_boot import BootFailure, check_image, log_writer, resolved_secrets
from cloudprovider.emulator.ledger import fargate_hourly, ipv4_hourly
from cloudprovider.emulator.sessions import agent_connects

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.ecs_task import Container, Task

logger = logging.getLogger(__name__)

ESSENTIAL = ("EssentialContainerExited", "Essential container in task exited")
INTERRUPTED = ("SpotInterruption", "Your Spot Task was interrupted.")
FAILED = "TaskFailedToStart"
SIGNALLED = 128  # a container that a signal ends exits with this and the signal's number
HOUR_S = 3600.0
END_S = 10.0


class Life:
    """Moves tasks from state to state, as time passes and processes end."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self.freed: Callable[[], None] = _nothing  # called when a task has given back what it held

    def begin(self, task: Task) -> None:
        """A task was ordered: place it, then start it."""
        account = self._account
        task.enter("PROVISIONING", "createdAt")
        address_s = account.spread(account.profile.address_s)
        running_s = max(address_s, account.spread(account.profile.running_s))
        account.timers.after(address_s, lambda: self._place(task, running_s - address_s))
        if task.market == "spot" and account.profile.spot_interruptions:
            hours = account.chance.expovariate(account.profile.spot_interruptions)
            account.timers.after(hours * HOUR_S, lambda: self.interrupt(task))

    def stop(self, task: Task, code: str, reason: str) -> None:
        """End a task, whatever state it is in."""
        with self._account.lock:
            if task.desired_status == "STOPPED":
                return
            task.desired_status, task.stop_code, task.stopped_reason = "STOPPED", code, reason
            if any(container.process is not None for container in task.containers):
                task.enter("DEACTIVATING", "stoppingAt")
                self._signal(task)
            elif task.last_status in ("PROVISIONING", "PENDING"):
                self._release(task, "stoppingAt")

    def lose(self, task: Task, code: str, reason: str) -> None:
        """A task's machine is no more: nothing in it is told, and nobody reports an exit code."""
        task.lost = True
        if task.desired_status != "STOPPED":
            task.desired_status, task.stop_code, task.stopped_reason = "STOPPED", code, reason
        if any(container.process is not None for container in task.containers):
            task.enter("STOPPING", "stoppingAt")
            self.kill(task)
        else:
            self._release(task, "stoppingAt")

    def interrupt(self, task: Task) -> None:
        """Take a spot task back: SIGTERM is its notice, SIGKILL comes at its stopTimeout.

        https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-capacity-providers.html
        """
        if task.market != "spot":
            raise ValueError(f"{task.id} is an on-demand machine: only a spot machine is interrupted.")
        self.stop(task, *INTERRUPTED)

    def kill(self, task: Task) -> None:
        """End a task's processes at once, as a fault of its own machine would."""
        processes = [container.process for container in task.containers]
        for process in filter(None, processes):
            process.kill()

    def end(self, tasks: Sequence[Task]) -> None:
        """End all processes, and wait until they have ended."""
        for task in tasks:
            self.kill(task)
        deadline = time.monotonic() + END_S
        while any(c.process is not None for task in tasks for c in task.containers):
            if time.monotonic() > deadline:
                raise TimeoutError(f"Some machines' processes did not end within {END_S:g} s of SIGKILL.")
            time.sleep(0.005)

    def _place(self, task: Task, left_s: float) -> None:
        account, network = self._account, self._network(task)
        with account.lock:
            if task.desired_status == "STOPPED":
                return
            try:
                task.interface = self._interface(task, network)
            except ec2.NoFreeAddress:
                word = "enabled" if task.public else "disabled"
                self._fail(
                    task,
                    "Unexpected EC2 error while attempting to Create Network Interface with public IP "
                    f"assignment {word} in subnet '{task.subnet}': InsufficientFreeAddressesInSubnet",
                )
                return
            account.network.attach(network, task.interface, task.id)
            task.attachment_status = "ATTACHED"
            task.enter("PENDING", "connectivityAt")
            try:
                writers = self._prepare(task, network)
            except BootFailure as failure:
                self._fail(task, str(failure))
                return
        account.timers.after(left_s, lambda: self._launch(task, writers))

    def _interface(self, task: Task, network: Any) -> Any:
        spare = 0
        for fault in self._account.faults.of("addresses"):
            if fault.subnet in ("", task.subnet):
                free = ec2.free_addresses(network, task.subnet)
                spare = max(spare, fault.held.setdefault(task.subnet, free - fault.room))
        arn = f"arn:aws:ecs:{task.region}:{task.account}:attachment/{task.attachment}"
        return ec2.attach_interface(network, task.subnet, task.groups, arn, public=task.public, spare=spare)

    def _prepare(self, task: Task, network: Any) -> list[Callable[[str], None]]:
        account = self._account
        for container in task.containers:
            task.secrets[container.name] = resolved_secrets(task, network, container)
            task.mounts[container.name] = ecs_volumes.mounts(task, container, account.room.folder / "efs")
        writers = [log_writer(task, network, container, account.lock) for container in task.containers]
        task.enter("PENDING", "pullStartedAt")
        if not task.own:
            self._bill(task)
        for container in task.containers:
            check_image(account, task, network, container)
        return writers

    def _bill(self, task: Task) -> None:
        size, start = task.size, task.times["pullStartedAt"]
        hourly = fargate_hourly(
            task.region,
            vcpu=size.vcpus,
            memory_gb=size.memory / 1024,
            storage_gb=size.storage_gb,
            market=task.market,
            architecture=task.architecture,
        )
        self._account.ledger.start(task.id, str(size), task.market, hourly, start)
        if task.public:
            self._account.ledger.start(task.id, "public IPv4", "on-demand", ipv4_hourly(), start)

    def _launch(self, task: Task, writers: list[Callable[[str], None]]) -> None:
        account = self._account
        with account.lock:
            if task.desired_status == "STOPPED":
                return
            task.enter("PENDING", "pullStoppedAt")
        for container, write in zip(task.containers, writers, strict=True):
            try:
                process = self._start(task, container, write)
            except (OSError, LookupError) as error:
                with account.lock:
                    container.reason = f"CannotStartContainerError: {error}"
                    self._fail(task, container.reason)
                return
            with account.lock:
                if container.status == "PENDING":
                    container.process, container.status, container.since = process, "RUNNING", time.time()
        with account.lock:
            if task.lost:
                self.kill(task)
            elif task.desired_status == "STOPPED":
                self._signal(task)
            elif task.last_status == "PENDING":
                task.enter("RUNNING", "startedAt")
                if agent_connects(task, self._network(task)):
                    task.agent = "RUNNING"

    def _start(self, task: Task, container: Container, write: Callable[[str], None]) -> Any:
        network = self._account.network.path(task.id)
        return self._account.room.within(network).start(
            image=container.definition["image"],
            argv=container.argv,
            environ=self._environ(task, container),
            address=task.address,
            architecture=task.architecture,
            mounts=task.mounts[container.name],
            init=container.init,
            log=write,
            exited=functools.partial(self._exited, task, container, write),
        )

    def _environ(self, task: Task, container: Container) -> dict[str, str]:
        endpoint, network = self._account.endpoint, self._account.network
        environ = {
            **container.environment(),
            **task.secrets[container.name],
            **network.ecs_environ(endpoint, container.runtime_id, role=bool(task.task_role)),
            "AWS_EXECUTION_ENV": f"AWS_ECS_{task.launch_type}",
            "AWS_REGION": task.region,
            "AWS_DEFAULT_REGION": task.region,
            # the two ways on which code in the machine reaches the cloud that it runs in
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        if task.gpus:
            environ["NVIDIA_VISIBLE_DEVICES"] = ",".join(task.gpus)
        return environ

    def _exited(self, task: Task, container: Container, write: Callable[[str], None], code: int) -> None:
        account = self._account
        with account.lock:
            container.process = None
            if not task.lost:
                container.exit_code = code if code >= 0 else SIGNALLED - code
            if task.desired_status != "STOPPED" and container.restarts_now(account.timers.scale):
                account.timers.after(0.0, lambda: self._restart(task, container, write))
            else:
                self._ended(task, container)

    def _restart(self, task: Task, container: Container, write: Callable[[str], None]) -> None:
        """Start a container again whose restart policy wants it; its task goes on meanwhile."""
        if task.desired_status == "STOPPED":
            with self._account.lock:
                self._ended(task, container)
            return
        try:
            process = self._start(task, container, write)
        except (OSError, LookupError) as error:
            with self._account.lock:
                container.reason = f"CannotStartContainerError: {error}"
                self._ended(task, container)
            return
        with self._account.lock:
            container.process, container.since = process, time.time()
            container.exit_code, container.restarts = None, container.restarts + 1
            if task.desired_status == "STOPPED":
                process.stop(container.stop_timeout)

    def _ended(self, task: Task, container: Container) -> None:
        """A container has ended for good; the end of an essential one is its task's."""
        container.status = "STOPPED"
        if container.essential and task.desired_status != "STOPPED":
            task.desired_status = "STOPPED"
            task.stop_code, task.stopped_reason = ESSENTIAL
            task.enter("DEACTIVATING", "stoppingAt")
            self._signal(task)
        running = any(other.status == "RUNNING" for other in task.containers)
        if not running and task.desired_status == "STOPPED":
            self._release(task, "executionStoppedAt")

    def _signal(self, task: Task) -> None:
        task.agent = "STOPPED"
        task.enter("STOPPING", "stoppingAt")
        for container in task.containers:
            if container.process is not None:
                container.process.stop(container.stop_timeout)

    def _fail(self, task: Task, reason: str) -> None:
        task.desired_status, task.stop_code, task.stopped_reason = "STOPPED", FAILED, reason
        running = [container for container in task.containers if container.process is not None]
        if running:
            self._signal(task)
        else:
            self._release(task, "stoppingAt", "executionStoppedAt")

    def _release(self, task: Task, *stamps: str) -> None:
        if task.last_status in ("DEPROVISIONING", "STOPPED"):
            return
        for container in task.containers:
            container.status = "STOPPED"
        task.enter("DEPROVISIONING", *stamps)
        self._account.timers.after(self._account.profile.release_s, lambda: self._finish(task))

    def _finish(self, task: Task) -> None:
        with self._account.lock:
            task.enter("STOPPED", "stoppedAt")
            if task.interface is not None:
                self._account.network.detach(task.interface)
                ec2.release_interface(self._network(task), task.interface)
            task.attachment_status = "DELETED"
            self._account.ledger.stop(task.id, task.times.get("stoppedAt", time.time()))
            self.freed()

    @staticmethod
    def _network(task: Task) -> Any:
        from moto.ec2 import ec2_backends

        return ec2_backends[task.account][task.region]


def _nothing() -> None:
    """Be called when nobody else wants to be."""
