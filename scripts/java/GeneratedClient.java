import cart.client.ApiClient;
import cart.client.ApiException;
import cart.client.api.CartsApi;
import cart.client.api.CommandsApi;
import cart.client.model.AddCommand;
import cart.client.model.AddItemBody;
import cart.client.model.AddItemBodyPrice;
import cart.client.model.AdjustBody;
import cart.client.model.AdjustCommand;
import cart.client.model.BatchBody;
import cart.client.model.BatchedAdjust;
import cart.client.model.BatchedCommand;
import cart.client.model.BatchedRemove;
import cart.client.model.CheckoutCommand;
import cart.client.model.OneOf;
import cart.client.model.RemoveCommand;

import java.math.BigDecimal;
import java.util.List;
import java.util.Map;
import java.util.UUID;

/** Uses the client that is generated from the service's document: a cart is filled and bought. Its argument is the URL. */
public final class GeneratedClient {
    private static final UUID MUG = UUID.randomUUID();
    private static final UUID LAMP = UUID.randomUUID();

    public static void main(String[] arguments) throws ApiException {
        ApiClient client = new ApiClient();
        client.updateBaseUri(arguments[0]);
        CommandsApi commands = new CommandsApi(client);
        CartsApi carts = new CartsApi(client);
        UUID cart = UUID.randomUUID();

        var added = commands.addItem(cart, item(MUG, new AddItemBodyPrice("0.29")), null, null, "*", null, null, null);
        check("add", added.getVersion() == 1 && added.getItem().getPrice().equals("0.29"), added);

        var adjusted = commands.adjustItem(cart, MUG, new AdjustBody().adjustBy(2), "java-1", "\"1\"", null, null, null, null);
        check("adjust", adjusted.getItem().getQuantity() == 3, adjusted);
        var again = commands.adjustItem(cart, MUG, new AdjustBody().adjustBy(2), "java-1", "\"1\"", null, null, null, null);
        check("adjust again", again.getVersion().equals(adjusted.getVersion()), again);

        var shown = carts.showCart(cart, null, null, null);
        check("get", shown.getItems().size() == 1 && shown.getTotal().equals("0.87"), shown);

        List<BatchedCommand> batch = List.of(
            new BatchedCommand(new AddCommand().add(item(LAMP, new AddItemBodyPrice(new BigDecimal("19.99"))))),
            new BatchedCommand(new AdjustCommand().adjust(new BatchedAdjust().productId(MUG).adjustBy(-1))),
            new BatchedCommand(new RemoveCommand().remove(new BatchedRemove().productId(UUID.randomUUID()))),
            new BatchedCommand(new CheckoutCommand().checkout(Map.of())));
        var sent = commands.sendCommands(cart, new BatchBody().commands(batch), null, null, null, null, null, null);
        check("batch", sent.getResults().stream().map(OneOf::getStatus).toList().equals(List.of(200, 200, 404, 200)), sent);
        check("batch's checkout", "20.57".equals(sent.getResults().get(3).getOutcome().getTotal()), sent.getResults().get(3));

        commands.addItem(cart, item(MUG, new AddItemBodyPrice("3.50")), null, null, null, null, null, null);
        var bought = commands.checkout(cart, null, null, null, null, null, null);
        check("checkout", bought.getTotal().equals("3.5") && bought.getPurchasedAt() != null, bought);

        long since = System.currentTimeMillis() - 60_000;
        var status = commands.commandStatus(cart, bought.getCommandId(), since, null);
        check("status", status.getStatus().equals("accepted") && "3.5".equals(status.getOutcome().getTotal()), status);

        try {
            commands.checkout(cart, null, null, null, null, null, null);
            check("checkout of an empty cart", false, "it was accepted");
        } catch (ApiException rejected) {
            check("checkout of an empty cart", rejected.getCode() == 409, rejected.getResponseBody());
        }
    }

    private static AddItemBody item(UUID product, AddItemBodyPrice price) {
        return new AddItemBody().productId(product).vendorId(product).name("red mug").price(price).quantity(1);
    }

    private static void check(String step, boolean isRight, Object answer) {
        System.out.println("java: " + step + ": " + String.valueOf(answer).replaceAll("\\s+", " "));
        if (!isRight) {
            throw new IllegalStateException(step + " is answered otherwise than expected: " + answer);
        }
    }
}
