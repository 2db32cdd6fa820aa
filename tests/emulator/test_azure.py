"""The embedded Azure as its own SDK sees it: sign-in, resource groups, versions, strictness, rights and rates."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import requests
from azure.core import MatchConditions
from azure_subscription import GROUP, LOCATION, Subscription, code, refused

JSON = {"Content-Type": "application/json"}


def ask(subscription, method, path, **given):
    """A request of one's own, signed in."""
    token = subscription.compute._config.credential.get_token(f"{front()}/.default").token
    headers = {"Authorization": f"Bearer {token}", **JSON, **given.pop("headers", {})}
    return requests.request(method, f"{front()}{path}", headers=headers, timeout=10, **given)


def front():
    """Where Azure Resource Manager is."""
    return f"https://{os.environ['ARM_METADATA_HOSTNAME']}"


class TestReach:
    """How it is found."""

    def test_it_is_https_that_its_environment_makes_trusted(self, emulated_azure):
        """HTTPS requests are verified against the bundle that the environment names, which holds the public CAs too."""
        assert front().startswith("https://127.0.0.1:")
        assert requests.get(f"{front()}/metadata/endpoints?api-version=2022-09-01", timeout=10).ok
        bundle = Path(emulated_azure.environ["REQUESTS_CA_BUNDLE"])
        assert 50 < bundle.read_text("utf-8").count("BEGIN CERTIFICATE")

    def test_the_cloud_names_its_endpoints(self, emulated_azure):
        """`/metadata/endpoints` names Resource Manager and who signs in, as Terraform's provider asks."""
        told = requests.get(f"{front()}/metadata/endpoints?api-version=2022-09-01", timeout=10).json()

        assert f"{front()}/" == told["resourceManager"]
        assert front() == told["authentication"]["loginEndpoint"]

    def test_nobody_answers_without_a_token(self, emulated_azure):
        """A request without a token is refused as not authenticated."""
        answer = requests.get(f"{front()}/subscriptions/x/resourceGroups?api-version=2021-04-01", timeout=10)

        assert 401 == answer.status_code

    def test_a_made_up_token_is_refused(self, emulated_azure):
        """A token that nobody signed is refused."""
        id = emulated_azure.environ["AZURE_SUBSCRIPTION_ID"]
        url = f"{front()}/subscriptions/{id}/resourceGroups?api-version=2021-04-01"
        answer = requests.get(url, headers={"Authorization": "Bearer a.b.c"}, timeout=10)

        assert (401, "InvalidAuthenticationToken") == (answer.status_code, answer.json()["error"]["code"])


class TestEnvelope:
    """What all calls have alike; none of these changes what the next one sees."""

    def test_an_api_version_is_required(self, shared):
        """A call without api-version, or with one that there is not, is refused."""
        path = f"/subscriptions/{shared.id}/resourceGroups"

        assert "MissingApiVersionParameter" == ask(shared, "GET", path).json()["error"]["code"]
        for wrong in ("latest", "2199-01-01", "1999-01-01"):
            answer = ask(shared, "GET", f"{path}?api-version={wrong}")
            assert "InvalidApiVersionParameter" == answer.json()["error"]["code"]

    def test_older_versions_are_answered(self, shared):
        """Programs with an older SDK are answered as well."""
        path = f"/subscriptions/{shared.id}/resourceGroups?api-version=2019-10-01"

        assert 200 == ask(shared, "GET", path).status_code

    def test_every_answer_has_an_id_and_what_remains(self, shared):
        """Answers name the request, and how many the subscription has left."""
        answer = ask(shared, "GET", f"/subscriptions/{shared.id}/resourceGroups?api-version=2021-04-01")

        assert answer.headers["x-ms-request-id"]
        assert int(answer.headers["x-ms-ratelimit-remaining-subscription-reads"]) > 0

    def test_another_subscription_is_not_found(self, shared):
        """Only the one subscription is there."""
        path = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups?api-version=2021-04-01"

        assert "SubscriptionNotFound" == ask(shared, "GET", path).json()["error"]["code"]

    def test_an_unknown_type_is_not_found(self, shared):
        """What the SDK has no operation for does not exist."""
        path = shared.path("Microsoft.Compute", "teapots", "one")

        answer = ask(shared, "GET", f"{path}?api-version=2021-04-01")

        assert (404, "InvalidResourceType") == (answer.status_code, answer.json()["error"]["code"])

    def test_what_is_not_emulated_says_so(self, shared):
        """An operation that Azure has and the emulator has not is 501, never a wrong answer."""
        call = shared.compute.virtual_machines.begin_redeploy
        shared.order("one")

        assert (501, "NotImplemented") == code(call, GROUP, "one")

    def test_ids_are_the_same_in_any_case(self, shared):
        """Azure compares ids without case, and tells them as they were made."""
        network = shared.network.virtual_networks.get(GROUP.upper(), "NET")

        assert shared.path("Microsoft.Network", "virtualNetworks", "net") == network.id

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"propertys": {}}, "InvalidRequestContent"),
            ({"properties": {"hardware": 1}}, "InvalidRequestContent"),
            ({"properties": {"hardwareProfile": {"vmSize": 4}}}, "InvalidRequestContent"),
            ({"properties": {"priority": "Cheap"}}, "InvalidParameter"),
            ({"location": None}, "LocationRequired"),
            ({"tags": ["a"]}, "InvalidRequestContent"),
        ],
    )
    def test_bodies_are_checked_against_the_sdks_models(self, shared, change, expected):
        """A member that is unknown, of another type, of no known value, or missing, is refused."""
        document = {**shared.machine("one"), **change}
        path = shared.path("Microsoft.Compute", "virtualMachines", "one")
        given = {key: value for key, value in document.items() if value is not None}

        answer = ask(shared, "PUT", f"{path}?api-version=2024-07-01", json=given)

        assert (400, expected) == (answer.status_code, answer.json()["error"]["code"])

    def test_networks_have_words_of_their_own(self, shared):
        """Microsoft.Network says what is wrong within `details`."""
        call = shared.network.network_security_groups.begin_create_or_update

        error = refused(call, GROUP, "g", {"location": LOCATION, "properties": {"colour": "red"}})

        assert "InvalidRequestFormat" == error.error.code
        assert "Could not find member 'colour'" in error.error.details[0].message

    def test_broken_json_is_refused(self, shared):
        """A body that is no JSON is refused."""
        path = shared.path("Microsoft.Compute", "virtualMachines", "one")

        answer = ask(shared, "PUT", f"{path}?api-version=2024-07-01", data="{")

        assert "InvalidRequestContent" == answer.json()["error"]["code"]

    def test_conditions_are_held(self, shared):
        """If-None-Match makes nothing twice, If-Match changes nothing that is another."""
        call = shared.compute.virtual_machine_scale_sets.begin_create_or_update
        document = {
            "location": LOCATION,
            "properties": {"orchestrationMode": "Flexible", "platformFaultDomainCount": 1},
        }
        call(GROUP, "name", document, match_condition=MatchConditions.IfMissing, etag="*").result()

        error = refused(call, GROUP, "name", document, match_condition=MatchConditions.IfMissing, etag="*")

        assert 412 == error.status_code
        assert (
            412
            == refused(
                call, GROUP, "name", document, match_condition=MatchConditions.IfNotModified, etag='"other"'
            ).status_code
        )


class TestGroups:
    """Resource groups, providers and tags."""

    def test_a_group_is_made_once_and_found_again(self, subscription):
        """Put is idempotent, and tells tags and location."""
        groups = subscription.resources.resource_groups
        made = groups.create_or_update("Other", {"location": "West Europe", "tags": {"a": "b"}})

        assert ("Other", "westeurope", {"a": "b"}) == (made.name, made.location, made.tags)
        assert made.id == groups.get("other").id
        assert ["Other"] == [one.name for one in groups.list(filter="tagName eq 'a' and tagValue eq 'b'")]
        assert groups.check_existence("OTHER")
        assert not groups.check_existence("nobody")
        assert (409, "InvalidResourceGroupLocation") == code(
            groups.create_or_update, "other", {"location": "eastus"}
        )

    def test_a_group_goes_with_all_it_holds(self, subscription):
        """Deleting a group ends its machines and leaves nothing."""
        subscription.order("one", public=True)

        subscription.resources.resource_groups.begin_delete(GROUP).result()

        assert [] == subscription.cloud.leftovers()
        assert ["deleted"] == [machine.state for machine in subscription.cloud.machines()]
        assert (404, "ResourceGroupNotFound") == code(subscription.compute.virtual_machines.list, GROUP)

    def test_what_is_not_there_is_named(self, subscription):
        """A resource that is not there is named with its type and group."""
        error = refused(subscription.compute.virtual_machines.get, GROUP, "nobody")

        assert "ResourceNotFound" == error.error.code
        assert "Microsoft.Compute/virtualMachines/nobody" in error.message

    def test_an_unregistered_provider_is_named(self, subscription):
        """Nothing of a provider that the subscription does not use can be made until it is registered."""
        providers = subscription.resources.providers
        providers.unregister("Microsoft.Compute")
        path = f"/subscriptions/{subscription.id}/providers/Microsoft.Compute/virtualMachines"
        answer = ask(subscription, "GET", f"{path}?api-version=2024-07-01")  # the SDK would register it

        assert (409, "MissingSubscriptionRegistration") == (
            answer.status_code,
            answer.json()["error"]["code"],
        )
        assert "'Microsoft.Compute'" in answer.text
        assert "Registered" == providers.register("Microsoft.Compute").registration_state
        assert [] == list(subscription.compute.virtual_machines.list_all())

    def test_tags_of_anything_can_be_merged(self, subscription):
        """The tags operations change those of a resource without the rest of it."""
        machine = subscription.order("one")
        body = {"operation": "Merge", "properties": {"tags": {"dask-ended": "why"}}}
        path = f"{machine.id}/providers/Microsoft.Resources/tags/default?api-version=2021-04-01"

        assert 200 == ask(subscription, "PATCH", path, json=body).status_code
        found = subscription.compute.virtual_machines.get(GROUP, "one").tags
        assert {"dask-cluster": "c", "dask-ended": "why"} == found


class TestWrongs:
    """Rights, rates and faults."""

    def test_a_right_that_is_missing_is_named(self, subscription):
        """Who may not do something is told the action and the scope."""
        subscription.cloud.inject("policy", allowed=[{"actions": ["*/read"]}])

        error = refused(subscription.order, "one")

        assert (403, "AuthorizationFailed") == (error.status_code, error.error.code)
        assert "'Microsoft.Compute/virtualMachines/write'" in error.message
        assert subscription.path("Microsoft.Compute", "virtualMachines", "one") in error.message

    def test_a_linked_right_that_is_missing_is_named(self, subscription):
        """A machine in a subnet needs the right to join it."""
        subscription.cloud.inject("policy", allowed=[{"actions": ["*"], "notActions": ["*/join/action"]}])

        error = refused(subscription.order, "one")

        assert "LinkedAuthorizationFailed" == error.error.code
        assert "'Microsoft.Network/networkSecurityGroups/join/action'" in error.message
        assert [] == list(subscription.network.network_interfaces.list_all())

    def test_too_many_calls_are_throttled(self, emulated_azure):
        """Beyond the published rates calls are refused with 429 and when to come again."""
        rate = {"rate": [3, 0.1], "operations": ["compute:VirtualMachines.ListAll"]}
        emulated_azure.reset(calls=[rate])
        machines = Subscription.of(emulated_azure).compute.virtual_machines
        for _ in range(3):
            list(machines.list_all())

        error = refused(machines.list_all)

        assert (429, "OperationNotAllowed") == (error.status_code, error.error.code)
        assert "TooManyRequests" == error.error.details[0].code
        assert 1 <= int(error.response.headers["Retry-After"])
        assert "0" == error.response.headers["x-ms-ratelimit-remaining-resource"].rpartition(";")[2]

    def test_faults_hit_the_operations_they_name(self, subscription):
        """Throttling, errors, lost answers and server errors hit as often as they are told."""
        cloud, machines = subscription.cloud, subscription.compute.virtual_machines
        cloud.inject("throttle", "VirtualMachines.ListAll", times=1)
        cloud.inject("error", "VirtualMachines.List", times=1, code="Oh", message="no", status=409)
        cloud.inject("error-after-effect", "ResourceGroups.CreateOrUpdate", times=1)
        cloud.inject("expired-credentials", "ResourceGroups.List", times=1)

        assert 429 == refused(machines.list_all).status_code
        assert (409, "Oh") == code(machines.list, GROUP)
        groups = subscription.resources.resource_groups
        assert 500 == refused(groups.create_or_update, "new", {"location": LOCATION}).status_code
        assert "new" == groups.get("new").name
        assert (401, "ExpiredAuthenticationToken") == code(groups.list)
        assert [] == list(machines.list_all())

    def test_every_call_is_remembered(self, subscription):
        """Calls have the SDK's own names, and the errors they were answered."""
        refused(subscription.compute.virtual_machines.get, GROUP, "nobody")

        last = subscription.cloud.calls[-1]
        assert ("compute", "VirtualMachines.Get", "ResourceNotFound") == (
            last.service,
            last.operation,
            last.error,
        )

    def test_the_published_profile_tells_when_to_ask_again(self, emulated_azure):
        """With the profile `azure` operations are accepted first, and say how long to wait."""
        emulated_azure.reset(profile="azure", time_scale=0.1)
        subscription = Subscription.of(emulated_azure)
        groups = subscription.resources.resource_groups
        groups.create_or_update(GROUP, {"location": LOCATION})
        document = {
            "location": LOCATION,
            "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}},
        }
        path = subscription.path("Microsoft.Network", "virtualNetworks", "net")

        answer = ask(subscription, "PUT", f"{path}?api-version=2024-05-01", json=document)

        assert 201 == answer.status_code
        assert "1" == answer.headers["Retry-After"]
        path = answer.headers["Azure-AsyncOperation"].removeprefix(front())
        status = ask(subscription, "GET", path)
        assert status.json()["status"] in ("InProgress", "Succeeded")


def test_a_new_day_has_nothing(emulated_azure):
    """After a reset no group, no machine and no call is left."""
    Subscription.of(emulated_azure).prepare().order("one")

    emulated_azure.reset()

    assert ([], [], []) == (emulated_azure.calls, emulated_azure.machines(), emulated_azure.leftovers())
    assert [] == list(Subscription.of(emulated_azure).resources.resource_groups.list())
