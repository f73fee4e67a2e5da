"""What people have said no to with one of their identifiers: it holds for the others, too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from activation.domain.consent import SAID_NO, VENDOR_SETS, Vendor
from activation.domain.manifest import Manifest
from activation.members.consents import LIMITED, PERSONALIZATION, USER_DATA, VENDORS, parts_of
from activation.members.layout import digests_of, leading, whole

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from activation.members.consents import Parts
    from activation.members.store import MemberStore

    Names = npt.NDArray[np.uint64]
    Mask = npt.NDArray[np.bool_]

COLUMNS = ("consent", "person")
KINDS = (USER_DATA, PERSONALIZATION, LIMITED)


@dataclass(frozen=True, slots=True)
class Objections:
    """The names of the people, sorted, who said no to a kind of use, or to a vendor."""

    kinds: Mapping[int, Names]
    vendors: Mapping[Vendor, Names]

    def heard(self, members: Any, said: Parts) -> Parts:
        """What members said, with the no of their people."""
        names, tied = _people(members)
        for kind, people in self.kinds.items():
            said[tied & _among(names, people), kind] = SAID_NO
        for vendor, people in self.vendors.items():
            denying = tied & _among(names, people)
            said[denying, VENDORS] = _with(vendor)[said[denying, VENDORS]]
        return said


def objections(store: MemberStore, manifest: Manifest) -> Objections | None:
    """Who of an audience said no to anything; None where no two identifiers are of one person, or
    nobody did."""
    import numpy as np

    if not manifest.linked:
        return None
    kinds = {kind: [np.zeros(0, np.uint64)] for kind in KINDS}
    vendors = {vendor: [np.zeros(0, np.uint64)] for vendor in Vendor}
    for members in store.iter_batches(manifest, COLUMNS):
        column = whole(members.column("consent"))
        if column.null_count == len(column):
            continue
        said, (names, tied) = parts_of(column), _people(members)
        for kind, found in kinds.items():
            found.append(np.unique(names[tied & (said[:, kind] == SAID_NO)]))
        for vendor, found in vendors.items():
            found.append(np.unique(names[tied & _denying(vendor)[said[:, VENDORS]]]))
    people = Objections(
        {kind: one for kind, found in kinds.items() if len(one := _joined(found))},
        {vendor: one for vendor, found in vendors.items() if len(one := _joined(found))},
    )
    return people if people.kinds or people.vendors else None


def _joined(found: list[Names]) -> Names:
    import numpy as np

    names: Names = np.unique(np.concatenate(found))
    return names


def _people(members: Any) -> tuple[Names, Mask]:
    """The name of each member's person, and whether it has one."""
    person = whole(members.column("person"))
    tied: Mask = person.is_valid().to_numpy(zero_copy_only=False).astype(bool)
    return leading(digests_of(person)), tied


def _among(names: Names, people: Names) -> Mask:
    import numpy as np

    places = np.minimum(np.searchsorted(people, names), len(people) - 1)
    mask: Mask = people[places] == names
    return mask


def _denying(vendor: Vendor) -> Mask:
    """For each number of the vendors' part, whether it denies one."""
    import numpy as np

    return np.array([vendor in denied for denied in VENDOR_SETS])


def _with(vendor: Vendor) -> npt.NDArray[np.uint8]:
    """For each number of the vendors' part, the one that denies a vendor, too."""
    import numpy as np

    return np.array([VENDOR_SETS.index(denied | {vendor}) for denied in VENDOR_SETS], np.uint8)
