"""What can be wrong with a key or a sealed field. No message holds a key or a text."""

from convergio.kernel.errors import Fault, Invalid, Unavailable


class BadKeyEncryptionKey(Invalid):
    """The KEK that was configured cannot be used."""

    code = "bad_kek"


class MissingKeyEncryptionKey(Unavailable):
    """A key was wrapped by a KEK that this process does not hold."""

    code = "kek_missing"


class MissingDataKey(Fault):
    """The data key that sealed a field is not there: it was destroyed, or never belonged here."""

    code = "data_key_missing"


class DamagedSeal(Fault):
    """A sealed field or key was altered, moved to another place, or sealed by another key."""

    code = "sealed_field_damaged"
