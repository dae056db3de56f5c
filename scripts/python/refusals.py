"""What schemathesis checks besides its own: a request that fits the document is refused for nothing but the cart's state,
or because what it names was never given out."""

import schemathesis

STATE = {
    "item-already-in-cart", "item-not-in-cart", "empty-cart-checkout", "cart-full", "negative-quantity",
    "quantity-too-large", "idempotency-key-reused", "version-mismatch", "command-not-found",
}


@schemathesis.check
def refused_for_its_state(_, response, case):
    if response.status_code not in {400, 404, 409, 412, 422} or case.meta is None:
        return
    # An empty header is invalid, although the generator may take it for valid.
    if not case.meta.generation.mode.is_positive or "" in (case.headers or {}).values():
        return
    kind = response.json()["type"].removeprefix("urn:cart:problem:")
    made_up = (
        # A Read-After-Token can't be made up, nor can a command's time be guessed where its id does not tell it.
        kind == "invalid-header" and "Read-After" in case.headers
        # A pattern can't express the calendar and its leap seconds.
        or kind == "invalid-header" and "Command-Time" in case.headers
        # Two conditions may contradict each other.
        or kind == "invalid-header" and {"If-Match", "If-None-Match"} <= set(case.headers)
        # A schema can't limit the decimal places of a number.
        or kind == "invalid-field" and "price: " in response.json()["detail"]
        or kind == "invalid-parameter" and case.operation.path.endswith("/{commandId}") and "since" not in case.query
    )
    assert made_up or kind in STATE, f"a request that fits the document is refused as {kind}: {response.text}"
