"""The tree of errors, and the border that foreign errors cross."""

from __future__ import annotations

import pickle
import re

import pytest

from cloudprovider import errors
from cloudprovider.errors import BootError, CapacityError, CloudError, ConfigError, translated


class ForeignError(Exception):
    """Of some SDK."""


def translate(error):
    """A cloud's table of one error."""
    return CapacityError("The cloud has none.") if isinstance(error, ForeignError) else None


def test_a_known_error_becomes_ours_and_keeps_its_cause():
    """What the table knows is raised as ours, from the foreign one."""
    foreign = ForeignError("InsufficientCapacity")
    with pytest.raises(CapacityError, match="has none") as caught, translated(translate):
        raise foreign

    assert foreign is caught.value.__cause__


def test_an_unknown_error_passes():
    """What the table does not know is not dressed up as something else."""
    unknown = KeyError("x")
    with pytest.raises(KeyError) as caught, translated(translate):
        raise unknown

    assert unknown is caught.value


def test_our_own_errors_are_not_wrapped_again():
    """A CloudError that the table hands back goes on as it is, without itself as its cause."""
    ours = CloudError("It is so.")
    with pytest.raises(CloudError) as caught, translated(lambda error: error):
        raise ours

    assert ours is caught.value
    assert caught.value.__cause__ is None


def test_interrupts_are_nobodys_error():
    """Ctrl-C is never translated."""
    with pytest.raises(KeyboardInterrupt), translated(lambda _: CloudError("no")):
        raise KeyboardInterrupt


def test_without_an_error_nothing_happens():
    """The border is open to what works."""
    with translated(translate):
        pass


def test_the_drawn_tree_is_the_tree():
    """The module's docstring draws each class, and each is where it is drawn."""
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__)
    classes = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, CloudError)]

    assert {cls.__name__ for cls in classes} == {*drawn, "CloudError"}
    assert {CloudError} == {
        cls.__base__ for cls in classes if cls is not CloudError and cls is not ConfigError
    }
    assert (CloudError, ValueError) == ConfigError.__bases__


def test_all_errors_are_public():
    """Whoever wants to catch one can import it from the package."""
    import cloudprovider

    assert set(errors.__all__) <= set(cloudprovider.__all__)


def test_a_boot_error_carries_the_machines_words():
    """The last log lines stand under the message, and by themselves."""
    error = BootError("Dask did not come.", "line 1\nline 2")

    assert "line 1\nline 2" == error.logs
    assert "Dask did not come.\n\nIts last log lines:\nline 1\nline 2" == str(error)
    assert "Dask did not come." == str(BootError("Dask did not come."))


@pytest.mark.parametrize("error", [CapacityError("none"), ConfigError("no"), BootError("no", "lines")])
def test_errors_travel(error):
    """An error can be pickled, as it must to come back from a worker."""
    again = pickle.loads(pickle.dumps(error))

    assert type(error) is type(again)
    assert error.args[0] in str(again)
