"""What visitors may send."""

from django import forms

from board.models import Note


class NoteForm(forms.ModelForm):
    """A new entry for the guest book."""

    class Meta:
        """Name and text are the visitor's, the rest is ours."""

        model = Note
        fields = ("name", "text")


class UploadForm(forms.Form):
    """One file, of any kind."""

    file = forms.FileField(allow_empty_file=True, max_length=255)
