"""The ledger."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudprovider import tags
from cloudprovider.errors import ConfigError
from cloudprovider.provider import Identity

EVERYWHERE = re.compile(r"[a-z0-9_-]{1,63}")

names = st.from_regex(tags.NAME, fullmatch=True)
times = st.integers(0, 2**40)
identities = st.builds(Identity, name=names, owner=st.text().map(tags.slug), created=times, expires=times)


@given(identities)
def test_identity_survives_the_tags(identity):
    """What the tags of a resource say is what they were made from."""
    assert identity == tags.identity(tags.for_cluster(identity))


@given(identities, st.sampled_from(["scheduler", "worker"]))
def test_every_cloud_takes_our_tags(identity, role):
    """All keys and values fit the narrowest rules there are, GCE's labels."""
    for key, value in tags.for_machine(identity, role).items():
        assert EVERYWHERE.fullmatch(key)
        assert EVERYWHERE.fullmatch(value)


@given(identities, st.dictionaries(st.text(), st.text()))
def test_other_tags_never_replace_ours(identity, extra):
    """A user's tags stand beside the ledger's, and cannot change whose a resource is."""
    written = tags.for_machine(
        identity, "worker", "default", {**extra, tags.CLUSTER: "another", tags.ROLE: "x"}
    )

    assert identity == tags.identity(written)
    assert "worker" == written[tags.ROLE]
    assert set(extra) <= set(written)


@pytest.mark.parametrize("missing", [tags.CLUSTER, tags.OWNER, tags.CREATED, tags.EXPIRES])
def test_what_lacks_a_tag_is_not_ours(missing):
    """A resource that does not say all of it is left alone."""
    written = tags.for_cluster(Identity(name="a", owner="b", created=1, expires=2))
    del written[missing]

    assert tags.identity(written) is None


def test_what_has_no_times_is_not_ours():
    """A tag of ours with a value of someone else's is no identity, and no error."""
    written = tags.for_cluster(Identity(name="a", owner="b", created=1, expires=2))

    assert tags.identity({**written, tags.EXPIRES: "tomorrow"}) is None


def test_all_our_tags_are_reserved():
    """Users cannot be given a tag that we write."""
    written = tags.for_machine(Identity(name="a", owner="b", created=1, expires=2), "worker")

    assert set(written) <= tags.RESERVED


@given(st.text(), st.integers(5, 63))
def test_any_text_has_a_slug(text, length):
    """Of any text in any script comes a name that every cloud takes."""
    slugged = tags.slug(text, length)

    assert len(slugged) <= length
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", slugged)


@given(names)
def test_a_good_name_is_its_own_slug_or_nearly(name):
    """Slugging keeps what is already good; only double hyphens are drawn together."""
    assert re.sub("-+", "-", name) == tags.slug(name)
    assert name == tags.checked_name(name)


@pytest.mark.parametrize(
    ("text", "slugged"),
    [
        ("Ada Lovelace", "ada-lovelace"),
        ("o'neill@example.org", "o-neill-example-org"),
        ("42", "dask-42"),
        ("", "dask"),
    ],
)
def test_slugs_can_be_recognised(text, slugged):
    """A person finds their name again in it."""
    assert slugged == tags.slug(text)


@pytest.mark.parametrize("name", ["", "1st", "Big", "a-", "a_b", "a" * 41, "ä", 7])
def test_names_that_some_cloud_refuses_are_refused(name):
    """The error says what a name is made of, and offers one that would do."""
    with pytest.raises(ConfigError, match="would do") as caught:
        tags.checked_name(name)

    offered = re.search(r"; '(.*)' would do", str(caught.value))[1]
    assert offered == tags.checked_name(offered)
