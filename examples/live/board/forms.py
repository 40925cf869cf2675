"""What visitors may send."""

from typing import Self

from django import forms
from django.core.exceptions import ValidationError

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


class EnterForm(forms.Form):
    """Who enters which room of the chat, from which browser tab."""

    room = forms.SlugField(max_length=30)
    name = forms.CharField(max_length=40)
    tab = forms.SlugField(max_length=20)


def check_unicode(text: str) -> None:
    r"""Refuse half of a surrogate pair, which JSON can spell ("\ud800") and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        message = "This is not Unicode text."
        raise ValidationError(message) from None


class MessageForm(forms.Form):
    """What somebody says in the chat."""

    text = forms.CharField(max_length=280, validators=[check_unicode])

    @classmethod
    def of(cls, content: object) -> Self:
        """Return the form for JSON that may be anything."""
        text = content.get("text") if isinstance(content, dict) else None
        return cls({"text": text} if isinstance(text, str) else {})


def problems(form: forms.Form) -> str:
    """Return what is wrong with a form, short enough for the reason of a WebSocket's close."""
    return " ".join(f"{field}: {errors[0]}" for field, errors in form.errors.items())[:120]
