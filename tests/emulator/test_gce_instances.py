"""Compute Engine's instances: ordered one by one and in bulk, found, changed and refused as Google does."""

from __future__ import annotations

import uuid

import gce_account
import pytest
from gce_account import REGION, ZONE, disk, script, spot
from google.api_core import exceptions


@pytest.fixture(scope="module")
def made(bare_processes):
    """The clients of a project whose machines are states only."""
    cloud = bare_processes("gcp")
    with cloud.active():
        project = gce_account.Project(cloud)
        assert project.credentials
        return project


@pytest.fixture
def project(made):
    """That project as on its first day."""
    made.cloud.reset(profile="instant", time_scale=1.0, seed=0)
    with made.cloud.active():
        yield made


def errors(operation):
    """The codes of what went wrong."""
    return [error.code for error in operation.error.errors]


class TestInsert:
    """instances.insert."""

    def test_an_order_is_accepted_and_then_done(self, project):
        """The answer is an operation that runs; the machine runs when it is done."""
        operation = project.insert("a", labels={"team": "x"}, service_accounts=[{"email": "default"}])
        assert ("insert", "RUNNING") == (operation.operation_type, operation.Status(operation.status).name)
        assert operation.target_link.endswith(f"/zones/{ZONE}/instances/a")

        operation = project.done(operation)
        found = project.get("a")
        assert (100, "RUNNING") == (operation.progress, found.status)
        assert operation.target_id == found.id
        assert {"team": "x"} == dict(found.labels)
        assert found.network_interfaces[0].network_i_p.startswith("127.")
        assert "" == project.cloud.machines()[0].reason

    def test_the_same_request_is_done_once(self, project):
        """A second call with the same request id has the first one's operation as its answer."""
        id = str(uuid.uuid4())
        first, second = (project.insert("a", request_id=id) for _ in range(2))
        assert first.name == second.name
        with pytest.raises(exceptions.Conflict):
            project.insert("b", request_id=id)
        assert {ZONE: ["a"]} == project.names()

    def test_a_request_id_is_a_uuid(self, project):
        """Anything else is refused."""
        with pytest.raises(exceptions.BadRequest, match="Must be a valid UUID"):
            project.insert("a", request_id="once")

    def test_a_name_is_taken_once(self, project):
        """A second instance of a name in a zone is refused at once; another zone may have it."""
        project.run("a")
        with pytest.raises(exceptions.Conflict, match=f"zones/{ZONE}/instances/a' already exists"):
            project.insert("a")
        other = disk()
        del other["initialize_params"]["disk_type"]
        operation = project.done(project.insert("a", zone="us-central1-b", disks=[other]))
        assert [] == errors(operation)
        assert ["a", "a.us-central1-b"] == sorted(one.id for one in project.cloud.machines())

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            (
                {"machine_type": "n9-standard-1"},
                "Machine type with name 'n9-standard-1' does not exist in zone",
            ),
            ({"disks": []}, "No disks are specified"),
            ({"disks": [disk(boot=False)]}, "Boot disk must be the first disk"),
            ({"disks": [disk(size_gb=5)]}, "cannot be smaller than the image size"),
            ({"disks": [disk(kind="pd-fast")]}, "diskType resource cannot be found"),
            ({"disks": [disk(image="global/images/mine")]}, "global/images/mine' was not found"),
            ({"disks": [disk(image="projects/cos-cloud/global/images/family/cos-arm64-stable")]}, "ARM64"),
            ({"network_interfaces": []}, "At least one network interface is required"),
            (
                {"network_interfaces": [{"network": "global/networks/mine"}]},
                "network resource cannot be found",
            ),
            ({"labels": {"Team": "x"}}, "Label keys must start with a lowercase letter"),
            ({"labels": {"team": "X"}}, "Label value 'X' violates format constraints"),
            ({"tags": {"items": ["A b"]}}, r"tags.items\[0\]"),
            ({"service_accounts": [{"email": "no@dask.example"}]}, "of type 'serviceAccount' was not found"),
            ({"metadata": {"items": [{"key": "x", "value": "y" * 262_145}]}}, "is too long"),
            ({"scheduling": spot(automatic_restart=True)}, "automaticRestart be false"),
            ({"scheduling": spot(on_host_maintenance="MIGRATE")}, "do not support live migration"),
            ({"scheduling": {"max_run_duration": {"seconds": 5}}}, "between 30 seconds and 120 days"),
            ({"scheduling": {"max_run_duration": {"seconds": 60}}}, "must have one"),
            ({"scheduling": {"instance_termination_action": "DELETE"}}, "Only Spot VMs"),
            ({"machine_type": "n4-standard-2"}, r"\[pd-balanced\] features are not compatible"),
            ({"machine_type": "g2-standard-4"}, "do not support live migration"),
        ],
    )
    def test_what_cannot_be_is_refused_at_once(self, project, changes, said):
        """Each with Google's words, and nothing is made."""
        with pytest.raises((exceptions.BadRequest, exceptions.NotFound), match=said):
            project.insert("a", **changes)
        assert [] == project.cloud.leftovers()

    def test_a_bad_name_is_refused(self, project):
        """Names are lower-case, and begin with a letter."""
        with pytest.raises(exceptions.BadRequest, match="Must be a match of regex"):
            project.insert("A-1")

    def test_gpus_come_with_their_type_or_are_attached(self, project):
        """An accelerator-optimised type has its own; N1 machines take those of their zone."""
        stays = {"on_host_maintenance": "TERMINATE"}
        own = project.run("l4", machine_type="g2-standard-4", scheduling=stays)
        card = {
            "accelerator_type": f"zones/{ZONE}/acceleratorTypes/nvidia-tesla-t4",
            "accelerator_count": 2,
        }
        added = project.run("t4", machine_type="n1-standard-4", scheduling=stays, guest_accelerators=[card])
        assert [1, 2] == [one.guest_accelerators[0].accelerator_count for one in (own, added)]
        with pytest.raises(exceptions.BadRequest, match="features are not compatible"):
            project.insert("no", machine_type="e2-standard-4", scheduling=stays, guest_accelerators=[card])

    def test_a_stockout_comes_after_the_order_was_accepted(self, project):
        """The operation fails, names the zone, and leaves nothing."""
        with project.cloud.inject("capacity", room=0, zone=ZONE):
            operation = project.done(project.insert("a"))
        assert ["ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS"] == errors(operation)
        assert f"zones/{ZONE}' does not have enough resources" in operation.error.errors[0].message
        assert 503 == operation.http_error_status_code
        assert [] == project.cloud.leftovers()

    def test_a_quota_is_told_in_the_operation_and_in_the_region(self, project):
        """It names the quota, its limit and the region; regions.get tells limit and usage."""
        project.cloud.reset(figures={"quotas": {"N2_CPUS": 3}})
        project.run("a")
        operation = project.done(project.insert("b"))
        assert ["QUOTA_EXCEEDED"] == errors(operation)
        assert (
            "Quota 'N2_CPUS' exceeded.  Limit: 3.0 in region us-central1."
            == operation.error.errors[0].message
        )
        told = project.ask("regions", "get", region=REGION).quotas
        assert [(3.0, 2.0)] == [(one.limit, one.usage) for one in told if one.metric == "N2_CPUS"]
        assert [] == errors(project.done(project.insert("c", machine_type="e2-standard-2")))

    def test_a_subnetwork_has_so_many_addresses(self, project):
        """When none is left, the operation says so."""
        with project.cloud.inject("addresses", room=0):
            operation = project.done(project.insert("a"))
        assert ["IP_SPACE_EXHAUSTED"] == errors(operation)

    def test_a_new_service_account_is_not_known_yet(self, project):
        """A machine can run as it a while after it was made."""
        made, said = project.web(
            "POST", "/iam/v1/projects/{project}/serviceAccounts", {"accountId": "machine-1"}
        )
        assert 200 == made, said
        with (
            project.cloud.inject("role-propagation", seconds=60),
            pytest.raises(exceptions.BadRequest, match="serviceAccount' was not found"),
        ):
            project.insert("a", service_accounts=[{"email": said["email"]}])
        assert (
            said["email"]
            == project.run("a", service_accounts=[{"email": said["email"]}]).service_accounts[0].email
        )


class TestBulk:
    """instances.bulkInsert and regionInstances.bulkInsert."""

    def test_all_or_as_many_as_are_wanted_at_least(self, project):
        """Up to count are made, at least minCount, or none; each instance has an operation of its own."""
        with project.cloud.inject("capacity", room=3):
            operation = project.done(project.bulk(5, min_count=2))
        assert [] == errors(operation)
        assert 3 == len(project.names()[ZONE])
        status = operation.instances_bulk_insert_operation_metadata.per_location_status[f"zones/{ZONE}"]
        counts = (status.target_vm_count, status.created_vm_count, status.failed_to_create_vm_count)
        assert (5, 3, 2) == counts

        group = f'operationGroupId = "{operation.operation_group_id}"'
        parts = list(project.ask("zone_operations", "list", zone=ZONE, filter=group))
        failed = [errors(one) for one in parts if one.operation_type == "insert" and errors(one)]
        assert 2 * [["ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS"]] == failed

    def test_too_few_are_taken_back(self, project):
        """When fewer than minCount could be made, the operation fails, with the cause, and none is kept."""
        with project.cloud.inject("capacity", room=3):
            operation = project.done(project.bulk(5))
        assert ["VM_MIN_COUNT_NOT_REACHED", "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS"] == errors(operation)
        assert "Requested minimum count of 5 VMs could not be created." == operation.error.errors[0].message
        assert [] == project.cloud.leftovers()

    def test_nothing_can_be_made_at_all(self, project):
        """Then the call itself is refused, for capacity as for quota."""
        with (
            project.cloud.inject("capacity", room=0),
            pytest.raises(exceptions.ServiceUnavailable, match="enough resources"),
        ):
            project.bulk(2)
        with (
            project.cloud.inject("quota", room=0),
            pytest.raises(exceptions.Forbidden, match="Quota 'N2_CPUS' exceeded"),
        ):
            project.bulk(2)

    def test_quota_for_some(self, project):
        """A quota that has room for some of them makes those."""
        with project.cloud.inject("quota", room=5):
            operation = project.done(project.bulk(4, min_count=1))
        assert [] == errors(operation)
        assert 2 == len(project.names()[ZONE])

    def test_zones_by_policy(self, project):
        """A zone that is denied gets none, a limited one no more than that, and the rest is shared evenly."""
        policy = {
            "target_shape": "BALANCED",
            "locations": {
                "zones/us-central1-a": {"preference": "DENY"},
                "zones/us-central1-b": {"preference": "ALLOW", "constraints": {"max_count": 1}},
            },
        }
        body = {"disks": [disk()], "location_policy": policy}
        operation = project.done(project.bulk(5, **body))
        assert [] == errors(operation)
        assert {"us-central1-b": 1, "us-central1-c": 2, "us-central1-f": 2} == {
            zone: len(some) for zone, some in project.names().items()
        }

    def test_one_zone_with_room(self, project):
        """Without a shape all are in one zone: one that has room for them."""
        with project.cloud.inject("capacity", room=1, zone=ZONE):
            operation = project.done(project.bulk(3))
        assert [] == errors(operation)
        assert [3] == [len(some) for some in project.names().values()]
        assert ZONE not in project.names()

    def test_any_zone(self, project):
        """Any shape fills the zones where there is room."""
        rooms = {f"{REGION}-a": 1, f"{REGION}-b": 2, f"{REGION}-c": 2, f"{REGION}-f": 0}
        project.cloud.reset(figures={"capacity": rooms})
        operation = project.done(project.bulk(5, location_policy={"target_shape": "ANY"}))
        assert [] == errors(operation)
        expected = {f"{REGION}-a": 1, f"{REGION}-b": 2, f"{REGION}-c": 2}
        assert expected == {zone: len(some) for zone, some in project.names().items()}

    def test_names_as_given(self, project):
        """Each instance has the name that it is given, and a name that is taken refuses all."""
        names = {"dask-a-w-1": {}, "dask-a-w-2": {}}
        operation = project.done(project.bulk(2, zone=ZONE, per_instance_properties=names))
        assert [] == errors(operation)
        assert [*names] == sorted(project.names()[ZONE])
        with pytest.raises(exceptions.Conflict, match="already exists"):
            project.bulk(2, zone=ZONE, per_instance_properties={"dask-a-w-2": {}, "dask-a-w-3": {}})

    def test_names_by_pattern(self, project):
        """Numbers go on after the greatest there is."""
        for _ in range(2):
            assert [] == errors(project.done(project.bulk(2, zone=ZONE)))
        assert {ZONE: ["w-001", "w-002", "w-003", "w-004"]} == project.names()

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"name_pattern": "w"}, "one sequence of '#'"),
            ({"min_count": 9}, "between 1 and the count"),
            ({"per_instance_properties": {"a": {}}}, "as many entries as count"),
            ({"name_pattern": "w-#", "per_instance_properties": {"a": {}, "b": {}}}, "Exactly one of"),
            ({"machine_type": f"zones/{ZONE}/machineTypes/n2-standard-2"}, "not a URL"),
            ({"location_policy": {"locations": {"zones/europe-west1-b": {}}}}, "zone of the region"),
        ],
    )
    def test_refused(self, project, changes, said):
        """What cannot be is refused at once."""
        with pytest.raises(exceptions.BadRequest, match=said):
            project.bulk(2, **changes)

    def test_ten_at_the_same_time(self, project):
        """No more bulk operations are taken while ten run."""
        project.cloud.reset(figures={"running_s": 600})
        for number in range(10):
            project.bulk(1, name_pattern=f"w{number}-#")
        with pytest.raises(exceptions.Forbidden, match="At most 10 bulk operations"):
            project.bulk(1)

    def test_a_thousand_in_one_call(self, project):
        """A thousand machines run after one call, and are gone again."""
        operation = project.done(project.bulk(1000, name_pattern="w-####", min_count=1))
        assert [] == errors(operation)
        assert 1000 == sum(len(some) for some in project.names().values())
        assert 1 == sum(call.operation == "regionInstances.bulkInsert" for call in project.cloud.calls)


class TestFound:
    """Lists, filters and pages."""

    def test_by_labels(self, project):
        """Labels are compared as words, by `=` or `:`, alone or together, and by regular expressions."""
        for number, team in enumerate(["x", "y", "x"]):
            project.run(f"m-{number}", labels={"team": team, "dask-n": str(number)})
        expected = {
            'labels.team = "x"': ["m-0", "m-2"],
            '(labels.team = "x") (labels.dask-n != "0")': ["m-2"],
            "labels.team = x AND labels.dask-n = 2": ["m-2"],
            "labels.other:*": [],
            "labels.dask-n:*": ["m-0", "m-1", "m-2"],
            "name eq m-[01]": ["m-0", "m-1"],
            'status = "RUNNING"': ["m-0", "m-1", "m-2"],
            "labels.team = (x OR y) AND name != m-1": ["m-0", "m-2"],
        }
        assert expected == {text: project.names(text).get(ZONE, []) for text in expected}
        with pytest.raises(exceptions.BadRequest, match="Invalid list filter expression"):
            project.names("labels.team = ")

    def test_in_pages(self, project):
        """Small pages are read on by the client, and every zone without any says so."""
        for number in range(3):
            project.run(f"m-{number}")
        assert {ZONE: ["m-0", "m-1", "m-2"]} == project.names(max_results=1)
        items = project.ask("instances", "list", zone=ZONE, max_results=2)
        assert ["m-0", "m-1", "m-2"] == [one.name for one in items]
        page = next(iter(project.ask("instances", "aggregated_list").pages))
        assert "NO_RESULTS_ON_PAGE" == page.items["zones/europe-west1-b"].warning.code

    def test_only_what_is_asked_for(self, project):
        """A mask of fields leaves those, in the header as in the query; what is none is refused."""
        project.run("a", labels={"x": "y"})
        path = "/compute/v1/projects/{project}/aggregated/instances?fields=%s"
        status, answer = project.web("GET", path % f"items/zones/{ZONE}/instances(name,labels/x)")
        assert (200, {}) == (status, answer.get("items", {}))  # a scope's name has a slash: only * means it
        _, answer = project.web("GET", path % "nextPageToken,items/*/instances(name,labels/x)")
        assert {"name": "a", "labels": {"x": "y"}} == answer["items"][f"zones/{ZONE}"]["instances"][0]
        pages = project.client("instances").aggregated_list(
            request={"project": project.id}, metadata=[("x-goog-fieldmask", "items/*/instances/name")]
        )
        assert [("a", "")] == [(one.name, one.status) for _, some in pages for one in some.instances]
        assert 400 == project.web("GET", path % "items(")[0]

    def test_a_zone_that_cannot_be_reached(self, project):
        """The list is of the others, and says so."""
        project.run("a")
        with project.cloud.inject("unreachable", zone=ZONE):
            page = next(iter(project.ask("instances", "aggregated_list").pages))
            assert {} == project.names()
        assert [f"zones/{ZONE}"] == list(page.unreachables)
        assert "UNREACHABLE" == page.items[f"zones/{ZONE}"].warning.code
        assert {ZONE: ["a"]} == project.names()

    def test_a_while_after_it_was_made(self, project):
        """With stale lists a machine is seen later than it is made."""
        with project.cloud.inject("stale", seconds=600):
            project.done(project.insert("a"))
            assert {} == project.names()
            with pytest.raises(exceptions.NotFound):
                project.get("a")
        assert {ZONE: ["a"]} == project.names()

    def test_what_there_is(self, project):
        """Machine types, accelerators, images and regions are Google's."""
        kind = project.ask("machine_types", "get", zone=ZONE, machine_type="n2-standard-4")
        assert (4, 16384) == (kind.guest_cpus, kind.memory_mb)
        card = project.ask("accelerator_types", "get", zone=ZONE, accelerator_type="nvidia-l4")
        assert card.maximum_cards_per_instance > 0
        image = project.client("images").get_from_family(project="cos-cloud", family="cos-arm64-stable")
        assert ("ARM64", "READY") == (image.architecture, image.status)
        zones = {zone.rpartition("/")[2] for zone in project.ask("regions", "get", region=REGION).zones}
        assert {"us-central1-a", "us-central1-b", "us-central1-c", "us-central1-f"} <= zones
        assert project.id == project.ask("projects", "get").name
        with pytest.raises(exceptions.NotFound, match="zones/nowhere-1-a' was not found"):
            project.insert("a", zone="nowhere-1-a")


class TestChanged:
    """Labels, metadata and scheduling of instances that there are."""

    def test_labels_by_their_fingerprint(self, project):
        """Who does not know the labels as they are may not change them."""
        found = project.run("a", labels={"x": "1"})
        body = {"labels": {"x": "2"}, "label_fingerprint": found.label_fingerprint}
        change = {"zone": ZONE, "instance": "a", "instances_set_labels_request_resource": body}
        project.done(project.ask("instances", "set_labels_unary", **change))
        assert {"x": "2"} == dict(project.get("a").labels)
        with pytest.raises(exceptions.PreconditionFailed, match="Labels fingerprint"):
            project.ask("instances", "set_labels_unary", **change)

    def test_metadata_by_its_fingerprint(self, project):
        """And so it is with metadata, which the machine sees at once."""
        found = project.run("a")
        body = {"items": [{"key": "k", "value": "v"}], "fingerprint": found.metadata.fingerprint}
        change = {"zone": ZONE, "instance": "a", "metadata_resource": body}
        project.done(project.ask("instances", "set_metadata_unary", **change))
        assert "v" == project.metadata("a", "instance/attributes/k")
        with pytest.raises(exceptions.PreconditionFailed):
            project.ask("instances", "set_metadata_unary", **change)

    def test_scheduling_while_it_is_stopped(self, project):
        """A run time can be limited only while the machine is stopped."""
        project.run("a")
        body = {"max_run_duration": {"seconds": 3600}, "instance_termination_action": "DELETE"}
        change = {"zone": ZONE, "instance": "a", "scheduling_resource": body}
        with pytest.raises(exceptions.BadRequest, match="must be stopped"):
            project.ask("instances", "set_scheduling_unary", **change)
        project.done(project.ask("instances", "stop_unary", zone=ZONE, instance="a"))
        project.done(project.ask("instances", "set_scheduling_unary", **change))
        assert 3600 == project.get("a").scheduling.max_run_duration.seconds

    def test_protected_machines_stay(self, project):
        """DeletionProtection refuses the end until it is taken away."""
        project.run("a", deletion_protection=True)
        with pytest.raises(exceptions.BadRequest, match="protected against deletion"):
            project.delete("a")
        project.done(
            project.ask(
                "instances",
                "set_deletion_protection_unary",
                zone=ZONE,
                resource="a",
                deletion_protection=False,
            )
        )
        project.delete("a")
        assert [] == project.cloud.leftovers()


class TestStrict:
    """What Google's own description does not allow."""

    @pytest.mark.parametrize(
        ("path", "body", "said"),
        [
            ("instances", {"name": "a", "colour": "red"}, 'Unknown name "colour"'),
            ("instances", {"name": "a", "disks": {"boot": True}}, "Invalid value at 'disks'"),
            ("instances", {"name": "a", "scheduling": {"provisioningModel": "CHEAP"}}, "provisioningModel"),
            ("instances?colour=red", {"name": "a"}, 'Unknown name "colour"'),
            ("instances/bulkInsert", {"count": "many"}, "Invalid value at 'count'"),
        ],
    )
    def test_requests(self, project, path, body, said):
        """Unknown fields and parameters, wrong types and enumerations are named."""
        status, answer = project.web("POST", f"/compute/v1/projects/{{project}}/zones/{ZONE}/{path}", body)
        assert 400 == status
        assert said in answer["error"]["message"]

    def test_methods(self, project):
        """A method that Google has not is not found; one that only the emulator has not says so."""
        status, _ = project.web("GET", "/compute/v1/projects/{project}/machines")
        assert 404 == status
        status, answer = project.web("GET", "/compute/v1/projects/{project}/global/snapshots")
        assert (501, "The emulated Google Cloud has no compute:snapshots.list.") == (
            status,
            answer["error"]["message"],
        )

    def test_what_only_the_emulator_has_not(self, project):
        """An order is not made without what it asks for."""
        for body in ({"sourceMachineImage": "global/machineImages/a"}, {"networkInterfaces": [{}, {}]}):
            status, answer = project.web(
                "POST",
                f"/compute/v1/projects/{{project}}/zones/{ZONE}/instances",
                {
                    "name": "a",
                    "machineType": f"zones/{ZONE}/machineTypes/n2-standard-2",
                    "disks": [{"boot": True, "initializeParams": {"sourceImage": gce_account.COS}}],
                    "networkInterfaces": [{}],
                    **body,
                },
            )
            assert (501, "notImplemented") == (status, answer["error"]["errors"][0]["reason"])

    def test_who_asks(self, project):
        """Nobody's token is refused, and so is none."""
        assert 401 == project.web("GET", "/compute/v1/projects/{project}", token="nobody")[0]
        assert 401 == project.web("GET", "/compute/v1/projects/{project}", token="")[0]

    def test_whose_project(self, project):
        """Another's project is not found."""
        with pytest.raises(exceptions.NotFound, match="projects/other' was not found"):
            project.client("instances").get(project="other", zone=ZONE, instance="a")

    def test_an_api_that_is_not_enabled(self, project):
        """It says which, and where to enable it."""
        status, _ = project.web(
            "POST", "/serviceusage/v1/projects/{project}/services/compute.googleapis.com:disable", {}
        )
        assert 200 == status
        with pytest.raises(exceptions.Forbidden, match="Compute Engine API has not been used"):
            project.insert("a")


class TestFaults:
    """What is made to go wrong."""

    def test_throttled(self, project):
        """Compute Engine refuses with 403 rateLimitExceeded; the services beside it with 429 and Retry-After."""
        with (
            project.cloud.inject("throttle", "instances.insert", times=1),
            pytest.raises(exceptions.Forbidden, match="Quota exceeded for quota metric"),
        ):
            project.insert("a")
        with project.cloud.inject("throttle", "secrets.list"):
            assert 429 == project.web("GET", "/secretmanager/v1/projects/{project}/secrets")[0]
        errors = [call.error for call in project.cloud.calls if call.error]
        assert ["rateLimitExceeded", "rateLimitExceeded"] == errors

    def test_rates_of_a_profile(self, project):
        """More bulk requests in a second than Google takes are refused."""
        project.cloud.reset(profile="gcp", time_scale=0.01)
        project.cloud.reset(
            figures={"latency_s": 0, "calls": [{"rate": [2, 0], "operations": ["compute:*.insert"]}]}
        )
        for name in ("a", "b"):
            project.insert(name)
        with pytest.raises(exceptions.Forbidden, match="Quota exceeded"):
            project.insert("c")

    def test_denied_names_the_permission(self, project):
        """Which permission was missing, and where."""
        with (
            project.cloud.inject("denied", "instances.insert"),
            pytest.raises(exceptions.Forbidden, match=r"Required 'compute\.instances\.create' permission"),
        ):
            project.insert("a")

    def test_an_answer_is_lost(self, project):
        """What was asked is done all the same, and the same request id tells so."""
        id = str(uuid.uuid4())
        with (
            project.cloud.inject("lost-answer", "instances.insert", times=1),
            pytest.raises(Exception, match=r"(?i)connection|remote"),
        ):
            project.insert("a", request_id=id)
        assert [] == errors(project.done(project.insert("a", request_id=id)))
        with (
            project.cloud.inject("error-after-effect", "instances.insert", times=1),
            pytest.raises(exceptions.ServiceUnavailable),
        ):
            project.insert("b")
        assert {ZONE: ["a", "b"]} == project.names()


class TestOperations:
    """What becomes of changes."""

    def test_kept_and_forgotten(self, project):
        """An operation is found where it was made, until it is deleted; whoever asks again has the same one."""
        rule = {"name": "allow-me", "allowed": [{"I_p_protocol": "tcp"}]}
        project.done(project.ask("firewalls", "insert_unary", firewall_resource=rule))
        id = str(uuid.uuid4())
        ended = project.ask("firewalls", "delete_unary", firewall="allow-me", request_id=id)
        assert project.done(ended).client_operation_id == id
        again = project.ask("firewalls", "delete_unary", firewall="allow-me", request_id=id)
        assert ended.name == again.name

        told = [one.name for one in project.ask("global_operations", "list")]
        assert [ended.name] == told[:1]
        scopes = dict(iter(project.ask("global_operations", "aggregated_list")))
        assert told == [one.name for one in scopes["global"].operations]
        project.ask("global_operations", "delete", operation=ended.name)
        with pytest.raises(exceptions.NotFound, match=f"operations/{ended.name}' was not found"):
            project.ask("global_operations", "get", operation=ended.name)
        zonal = project.insert("a")
        with pytest.raises(exceptions.NotFound):
            project.ask("zone_operations", "get", zone="us-central1-b", operation=zonal.name)


class TestAround:
    """Networks, firewalls, addresses, disks and images."""

    def test_firewalls(self, project):
        """Made, found by name, changed and deleted, each by an operation; a second of the name is refused."""
        rule = {
            "name": "allow-me",
            "network": "global/networks/default",
            "allowed": [{"I_p_protocol": "tcp", "ports": ["8786-8787"]}],
            "source_ranges": ["192.0.2.7/32"],
            "target_tags": ["dask"],
        }
        project.done(project.ask("firewalls", "insert_unary", firewall_resource=rule))
        found = project.ask("firewalls", "get", firewall="allow-me")
        assert (1000, "INGRESS", ["dask"]) == (found.priority, found.direction, list(found.target_tags))
        with pytest.raises(exceptions.Conflict):
            project.ask("firewalls", "insert_unary", firewall_resource=rule)
        change = {"source_ranges": ["198.51.100.1/32"]}
        project.done(project.ask("firewalls", "patch_unary", firewall="allow-me", firewall_resource=change))
        assert ["198.51.100.1/32"] == list(project.ask("firewalls", "get", firewall="allow-me").source_ranges)
        assert ["compute firewall: allow-me"] == project.cloud.leftovers()
        project.done(project.ask("firewalls", "delete_unary", firewall="allow-me"))
        with pytest.raises(exceptions.NotFound):
            project.ask("firewalls", "get", firewall="allow-me")
        bad = {**rule, "source_ranges": ["here"]}
        with pytest.raises(exceptions.BadRequest, match="CIDR"):
            project.ask("firewalls", "insert_unary", firewall_resource=bad)

    def test_networks_of_ones_own(self, project):
        """A network with a subnetwork of one's own takes machines there, and stays while it is used."""
        network = {"name": "mine", "auto_create_subnetworks": False}
        project.done(project.ask("networks", "insert_unary", network_resource=network))
        with pytest.raises(exceptions.BadRequest, match="no subnetwork"):
            project.insert("a", network_interfaces=[{"network": "global/networks/mine"}])
        subnetwork = {"name": "here", "network": "global/networks/mine", "ip_cidr_range": "127.200.7.0/24"}
        project.done(
            project.ask("subnetworks", "insert_unary", region=REGION, subnetwork_resource=subnetwork)
        )
        interface = {"subnetwork": f"regions/{REGION}/subnetworks/here"}
        found = project.run("a", network_interfaces=[interface]).network_interfaces[0]
        assert found.network_i_p.startswith("127.200.7.")
        assert found.network.endswith("/networks/mine")
        with pytest.raises(exceptions.BadRequest, match="already being used"):
            project.ask("subnetworks", "delete_unary", region=REGION, subnetwork="here")

    def test_a_shared_network(self, project):
        """Machines may be in a subnetwork of the host project."""
        host = f"{project.id}-host"
        shared = project.client("subnetworks").get(project=host, region=REGION, subnetwork="shared")
        found = project.run("a", network_interfaces=[{"subnetwork": shared.self_link}])
        assert f"projects/{host}/" in found.network_interfaces[0].network

    def test_public_addresses(self, project):
        """A machine's own goes when it stops; one that was reserved stays its owner's."""
        config = {"name": "outside", "type_": "ONE_TO_ONE_NAT"}
        found = project.run("a", network_interfaces=[{"access_configs": [config]}])
        assert found.network_interfaces[0].access_configs[0].nat_i_p
        project.done(project.ask("instances", "stop_unary", zone=ZONE, instance="a"))
        assert "" == project.get("a").network_interfaces[0].access_configs[0].nat_i_p
        project.done(
            project.ask("addresses", "insert_unary", region=REGION, address_resource={"name": "kept"})
        )
        kept = project.ask("addresses", "get", region=REGION, address="kept").address
        project.run("b", network_interfaces=[{"access_configs": [{**config, "nat_i_p": kept}]}])
        project.done(project.ask("instances", "stop_unary", zone=ZONE, instance="b"))
        assert kept == project.get("b").network_interfaces[0].access_configs[0].nat_i_p

    def test_disks(self, project):
        """A disk that does not go with its machine stays, and bills; one in use cannot be deleted."""
        project.run("a", disks=[disk(auto_delete=False)], metadata=script("true"))
        with pytest.raises(exceptions.BadRequest, match="already being used"):
            project.ask("disks", "delete_unary", zone=ZONE, disk="a")
        project.delete("a")
        assert ["compute disk: a 10 GB"] == project.cloud.leftovers()
        project.done(project.ask("disks", "delete_unary", zone=ZONE, disk="a"))
        assert [] == project.cloud.leftovers()

    def test_images_of_ones_own(self, project):
        """An image of the project boots machines."""
        body = {"name": "mine", "family": "mine", "source_image": gce_account.COS}
        project.done(project.ask("images", "insert_unary", image_resource=body))
        found = project.run("a", disks=[disk(image="global/images/family/mine")])
        assert "a" == found.name
        assert "mine" == project.cloud.machines()[0].image
