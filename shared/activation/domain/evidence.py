"""Evidence: how far the digests of a distribution's lists have come."""

from __future__ import annotations

from activation.domain.entity import Entity, Value


class ListSum(Value):
    """The sum over the first `batches_read` batches of one list (`members.set_digest`)."""

    operation: str
    list_sha256: str
    batches: int
    batches_read: int = 0
    rows_read: int = 0
    identifiers: int = 0
    total: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether all of the list was read."""
        return self.batches_read == self.batches


class ListDigest(Entity):
    """The sums of a distribution's lists, in the order of sending; a list never changes, so it is
    read once. Its id is the distribution's."""

    distribution_id: str
    sums: tuple[ListSum, ...]
