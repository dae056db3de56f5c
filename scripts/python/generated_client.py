"""Uses the client that scripts/generated-clients makes from the service's document: a cart is filled and bought.

    generated_client.py URL
"""

import sys
import time
from uuid import uuid4

from cart_client import Client
from cart_client.api.carts import show_cart
from cart_client.api.commands import add_item, adjust_item, checkout, command_status, send_commands
from cart_client.models import (
    Accepted, AddCommand, AddItemBody, AdjustBody, AdjustCommand, BatchBody, BatchedAdjust, BatchedCheckout, BatchedRemove, Cart,
    CheckoutCommand, CommandStatus, Problem, RemoveCommand,
)

client = Client(base_url=sys.argv[1], raise_on_unexpected_status=True, timeout=60)
cart, mug, lamp = uuid4(), uuid4(), uuid4()


def item(product, price):
    return AddItemBody(product_id=product, vendor_id=product, name="red mug", price=price, quantity=1)


def step(name, answer, kind, is_right):
    print(f"python: {name}: {answer}")
    if not isinstance(answer, kind) or not is_right(answer):
        sys.exit(f"{name} is answered otherwise than expected")
    return answer


added = add_item.sync(cart, client=client, body=item(mug, "0.29"), if_none_match="*")
step("add", added, Accepted, lambda answer: answer.version == 1 and answer.item.price == "0.29")

more = dict(client=client, body=AdjustBody(adjust_by=2), idempotency_key="python-1", if_match='"1"')
adjusted = step("adjust", adjust_item.sync(cart, mug, **more), Accepted, lambda answer: answer.item.quantity == 3)
step("adjust again", adjust_item.sync(cart, mug, **more), Accepted, lambda answer: answer.version == adjusted.version)

shown = show_cart.sync(cart, client=client)
step("get", shown, Cart, lambda answer: len(answer.items) == 1 and answer.total == "0.87")
unchanged = show_cart.sync_detailed(cart, client=client, if_none_match=f'"{shown.version}"')
step("get again", unchanged.status_code, int, lambda status: status == 304)

batch = BatchBody(commands=[
    AddCommand(add=item(lamp, 19.99)),
    AdjustCommand(adjust=BatchedAdjust(product_id=mug, adjust_by=-1)),
    RemoveCommand(remove=BatchedRemove(product_id=uuid4())),
    CheckoutCommand(checkout=BatchedCheckout()),
])
sent = send_commands.sync(cart, client=client, body=batch)
step("batch", sent, object, lambda answer: [one.status for one in answer.results] == [200, 200, 404, 200])
step("batch's checkout", sent.results[3].outcome, object, lambda outcome: outcome.total == "20.57")

add_item.sync(cart, client=client, body=item(mug, "3.50"))
bought = checkout.sync(cart, client=client)
step("checkout", bought, Accepted, lambda answer: answer.total == "3.5" and answer.purchased_at)

since = int(time.time() * 1000) - 60_000
status = command_status.sync(cart, bought.command_id, client=client, since=since)
step("status", status, CommandStatus, lambda answer: answer.status == "accepted" and answer.outcome.total == "3.5")

rejected = checkout.sync(cart, client=client)
step("checkout of an empty cart", rejected, Problem, lambda problem: problem.status == 409)
