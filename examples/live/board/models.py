"""The guest book."""

from django.db import models


class Note(models.Model):
    """One entry of the guest book.

    The primary key also serves the long poll as a cursor: SQLite has one writer at a time, so a
    note that becomes visible later has the larger key.
    """

    name = models.CharField(max_length=40)
    text = models.CharField(max_length=280)
    worker = models.PositiveIntegerField(editable=False)
    written = models.DateTimeField(auto_now_add=True)

    class Meta:
        """Newest first."""

        ordering = ("-pk",)

    def __str__(self) -> str:
        """Return the note on one line."""
        return f"{self.name}: {self.text}"

    def as_dict(self) -> dict[str, object]:
        """Return the note as the page's script wants it."""
        return {"id": self.pk, "name": self.name, "text": self.text, "worker": self.worker}
