"""Why a request is not let in, told alike for every cause that a thief could probe."""

from convergio.kernel.errors import Forbidden, NotFound, Unauthenticated


class BadKey(Unauthenticated):
    """The key is malformed, unknown, expired or revoked: the answer does not say which."""

    code = "bad_api_key"

    def __init__(self) -> None:
        """Say the one sentence."""
        super().__init__(
            "send a valid API key as 'Authorization: Bearer cvg_live_...';"
            " make one with: convergio apikey create"
        )


class ScopeMissing(Forbidden):
    """The key is good, but not for this."""

    code = "scope_missing"

    def __init__(self, scope: str) -> None:
        """Name the scope that is asked for."""
        super().__init__(f"this API key lacks the scope '{scope}'; use a key that has it")


class KeyNotFound(NotFound):
    """There is no such key."""

    code = "api_key_not_found"

    def __init__(self) -> None:
        """Say where the ids are."""
        super().__init__(
            "there is no such key; see the ids with: convergio apikey list", field="id"
        )
