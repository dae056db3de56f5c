//! Invalid requests, each with its expected rejection.

use reqwest::Method;

use super::api::Api;

pub(crate) const CART: &str = "/cart/7b6fc97b-9d5f-4ac9-8a62-7cfd8b4eb0ff";
pub(crate) const PRODUCT: &str = "/productId/5d9e0f5f-64c2-4c1b-9c63-0a3c0c3c9a01";
const JSON: (&str, &str) = ("content-type", "application/json");

/// A request, and the status, type and part of the detail of its rejection.
pub(crate) struct Refusal {
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Option<Vec<u8>>,
    problem: Expected,
}

/// Status, type and a part of the detail.
type Expected = (u16, &'static str, String);

impl Refusal {
    pub(crate) fn new(method: Method, path: impl Into<String>, problem: Expected) -> Self {
        Self { method, path: path.into(), headers: Vec::new(), body: None, problem }
    }

    pub(crate) fn header(mut self, (name, value): (&'static str, impl Into<String>)) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sent as JSON.
    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self.header(JSON)
    }

    /// Whether a header has this value.
    pub(crate) fn has(&self, value: &str) -> bool {
        self.headers.iter().any(|(_, of_header)| of_header == value)
    }

    /// Sends it. Returns the differences from the expected rejection.
    pub(crate) async fn check(&self, api: &Api) -> anyhow::Result<Option<String>> {
        let Self { method, path, headers, body, problem: (status, kind, detail) } = self;
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = api.send(method, path, &headers, body.as_deref()).await?;
        let difference = answer.unlike_problem(*status, kind, detail).map(|difference| {
            let body = String::from_utf8_lossy(body.as_deref().unwrap_or_default());
            let body: String = body.chars().take(300).collect();
            let value: String = headers.iter().map(|(name, value)| format!("{name}: {value:.40}; ")).collect();
            format!("{method} {path} {value}{body}\n   {difference}")
        });
        Ok(difference)
    }
}

/// A valid item except for one field, which has this JSON; empty leaves it out.
pub(crate) fn item(field: &str, json: &str) -> String {
    let fields = [
        ("productId", "\"5d9e0f5f-64c2-4c1b-9c63-0a3c0c3c9a01\""),
        ("vendorId", "\"c1a54a3e-2b52-4f0c-8b61-8f3e2f1d7b02\""),
        ("name", "\"red mug\""),
        ("price", "\"3.50\""),
        ("quantity", "2"),
    ];
    let of_field = |(name, valid)| (name, if name == field { json } else { valid });
    let fields = fields.map(of_field).into_iter().filter(|(_, json)| !json.is_empty());
    let fields: Vec<_> = fields.map(|(name, json)| format!("\"{name}\":{json}")).collect();
    format!("{{{}}}", fields.join(","))
}

fn add(body: impl Into<Vec<u8>>, problem: Expected) -> Refusal {
    Refusal::new(Method::POST, CART, problem).body(body)
}

fn adjust(body: &str, problem: Expected) -> Refusal {
    Refusal::new(Method::PATCH, format!("{CART}{PRODUCT}"), problem).body(body)
}

fn batch(body: &str, problem: Expected) -> Refusal {
    Refusal::new(Method::POST, format!("{CART}/commands"), problem).body(body)
}

/// Bodies that are not JSON.
pub(crate) fn malformed() -> Vec<Refusal> {
    let malformed = |detail: &str| (400, "malformed-body", detail.to_owned());
    let valid = item("", "");
    vec![
        add("", malformed("EOF while parsing a value")),
        add("{", malformed("EOF while parsing an object")),
        add(&valid[..valid.len() - 1], malformed("EOF while parsing an object")),
        add(format!("{valid}{valid}"), malformed("trailing characters")),
        add("price=1", malformed("expected value at line 1 column 1")),
        add(item("name", "'red mug'"), malformed("expected value")),
        add(item("price", "NaN"), malformed("expected value")),
        add(item("price", "-Infinity"), malformed("invalid number")),
        add(item("price", "1,5"), malformed("key must be a string")),
        add(item("price", ".5"), malformed("expected value")),
        add(item("quantity", "01"), malformed("invalid number")),
        // A body is only rejected as an invalid command if all of it is JSON.
        add("{\"colour\":1", malformed("EOF while parsing an object")),
        batch("{\"commands\":[5,{\"checkout\":{}]}", malformed("expected `,` or `}`")),
        // In JSON control characters must be escaped.
        add(item("name", "\"red\nmug\""), malformed("control character")),
        add(b"{\"name\":\"\xff\"}", malformed("JSON is UTF-8")),
        adjust("", malformed("EOF while parsing a value")),
        adjust("{\"adjustBy\":}", malformed("expected value")),
        batch("{\"commands\":[", malformed("EOF while parsing a list")),
    ]
}

/// JSON that is not a command.
pub(crate) fn fields() -> Vec<Refusal> {
    let invalid = |detail: &str| (422, "invalid-field", detail.to_owned());
    let not_uuid = |detail: &str| (400, "invalid-id", detail.to_owned());
    let beyond = "quantity: must be a whole number from -2147483648 to 2147483647";
    let name = |chars: usize| format!("\"{}\"", "x".repeat(chars));
    let nested = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let twice = |field: &str, json: &str| item("quantity", &format!("2,\"{field}\":{json}"));
    let mut all = vec![
        add(twice("colour", "\"red\""), invalid("unknown field `colour`")),
        add(twice("commandId", "\"x\""), invalid("unknown field `commandId`")),
        add(twice("Name", "\"x\""), invalid("unknown field `Name`")),
        add(twice("name", "\"red mug\""), invalid("duplicate field `name`")),
        add(twice("price", "\"3.50\""), invalid("duplicate field `price`")),
        add("null", invalid("null, expected an object")),
        add("5", invalid("integer `5`, expected an object")),
        add("\"mug\"", invalid("string \"mug\", expected an object")),
        add("[]", invalid("sequence, expected an object")),
        add(
            r#"["5d9e0f5f-64c2-4c1b-9c63-0a3c0c3c9a01","c1a54a3e-2b52-4f0c-8b61-8f3e2f1d7b02","mug","1",1]"#,
            invalid("sequence, expected an object"),
        ),
        add(item("productId", "5"), invalid("integer `5`, expected a string")),
        add(item("vendorId", "null"), invalid("null, expected a string")),
        add(item("name", "[\"mug\"]"), invalid("sequence, expected a string")),
        add(item("name", "\"\\ud800\""), invalid("hex escape")),
        add(item("price", "\"\\ud800\""), invalid("price: ")),
        add(item("quantity", "\"2\""), invalid("quantity: must be a whole number")),
        add(item("quantity", "null"), invalid("not null")),
        add(item("quantity", "1.5"), invalid("not 1.5")),
        add(item("quantity", "2.000001"), invalid("not 2.000001")),
        add(item("quantity", "0.99999999999999999"), invalid("not 0.99999999999999999")),
        add(item("quantity", "999999.99999999999"), invalid("not 999999.99999999999")),
        add(item("quantity", "1e400"), invalid("not 1e400")),
        add(item("quantity", "2147483648"), invalid(beyond)),
        add(item("quantity", "-2147483649"), invalid(beyond)),
        add(item("quantity", "9223372036854775808"), invalid(beyond)),
        add(item("productId", "\"\""), not_uuid("productId '' is not a UUID")),
        add(item("productId", "\"mug\""), not_uuid("productId 'mug' is not a UUID")),
        add(item("vendorId", "\"5d9e0f5f-64c2-4c1b-9c63-0a3c0c3c9a0\""), not_uuid("vendorId '5d9e0f5f")),
        add(item("name", "\"\""), invalid("name: the name is empty")),
        add(item("name", "\" \\t\\r\\n\\u00a0 \""), invalid("name: the name is empty")),
        add(item("name", "\"red\\u0000mug\""), invalid("name: the name has the control character U+0000")),
        add(item("name", "\"red mug\\r\""), invalid("name: the name has the control character U+000D")),
        add(item("name", "\"\\u009fx\""), invalid("name: the name has the control character U+009F")),
        add(item("name", "\"\\u200b\""), invalid("name: the name has only invisible characters")),
        add(item("name", "\"\\u2800 \\u3164\""), invalid("name: the name has only invisible characters")),
        batch(
            &format!("{{\"commands\":[{{\"add\":{}}}]}}", item("name", "\"\\ufeff\"")),
            invalid("commands[0].add.name: the name has only invisible characters"),
        ),
        add(item("name", &name(201)), invalid("name: the name has 201 characters, at most 200")),
        add(item("name", &name(100_000)), invalid("name: the name has 100000 characters")),
        add(item("price", "0.00001"), invalid("price: the price has more than 4 decimal places")),
        add(item("price", "\"1.23456\""), invalid("price: the price has more than 4 decimal places")),
        add(item("price", "1e-5"), invalid("price: the price has more than 4 decimal places")),
        add(item("price", &format!("0.{}1", "0".repeat(60))), invalid("price: the price has more than 4")),
        // It would be 1 if it were rounded anywhere.
        add(item("price", &format!("0.{}e0", "9".repeat(40))), invalid("price: the price has more than 4")),
        add(item("price", "-0.01"), invalid("price: the price is negative")),
        add(item("price", "\"-1\""), invalid("price: the price is negative")),
        add(item("price", "1000000000"), invalid("price: the price is above 999999999.9999")),
        add(item("price", "1e9"), invalid("price: the price is above 999999999.9999")),
        add(item("price", &"9".repeat(60)), invalid("price: the price is above 999999999.9999")),
        add(item("price", "1e400"), invalid("price: the price is above 999999999.9999")),
        add(item("price", "1e-400"), invalid("price: the price has more than 4 decimal places")),
        add(item("price", &nested), invalid("is not a decimal number")),
        adjust("{}", invalid("missing field `adjustBy`")),
        adjust("[1]", invalid("sequence, expected an object")),
        adjust("{\"adjustBy\":0}", invalid("adjustBy: 0 changes nothing")),
        adjust("{\"adjustBy\":2147483648}", invalid("adjustBy: must be a whole number")),
        adjust("{\"adjustBy\":0.5}", invalid("not 0.5")),
        adjust("{\"adjustBy\":0.99999999999999999}", invalid("not 0.99999999999999999")),
        adjust("{\"adjustBy\":1e309}", invalid("adjustBy: must be a whole number")),
        adjust("{\"adjustBy\":\"1\"}", invalid("not \"1\"")),
        adjust("{\"adjustBy\":1,\"adjustBy\":1}", invalid("duplicate field `adjustBy`")),
        adjust("{\"adjustBy\":1,\"productId\":1}", invalid("unknown field `productId`")),
        batch("{\"commands\":[]}", invalid("commands: there must be 1 to 100, not 0")),
        batch("[{\"checkout\":{}}]", invalid("sequence, expected an object")),
        batch("{\"commands\":[{\"checkout\":[]}]}", invalid("sequence, expected an object")),
        batch("{\"commands\":[{\"pay\":{}}]}", invalid("commands[0].pay: unknown variant `pay`")),
        batch("{\"commands\":[5]}", invalid("commands[0]: invalid type: integer `5`")),
        batch("{\"commands\":[null]}", invalid("commands[0]: invalid type: null")),
        batch("{\"commands\":[{}]}", invalid("commands[0]: one of add, remove, adjust and checkout is missing")),
        batch("{\"commands\":[{\"checkout\":{},\"checkout\":{}}]}", invalid("commands[0]: only one of")),
        batch(
            "{\"commands\":[{\"adjust\":{\"productId\":\"5d9e0f5f-64c2-4c1b-9c63-0a3c0c3c9a01\",\"adjustBy\":1e309}}]}",
            invalid("commands[0].adjust.adjustBy: must be a whole number"),
        ),
        batch(
            "{\"commands\":[{\"checkout\":{}},{\"remove\":{\"productId\":\"mug\"}}]}",
            not_uuid("commands[1].remove.productId 'mug'"),
        ),
    ];
    all.extend(
        ["productId", "vendorId", "name", "price", "quantity"]
            .map(|field| add(item(field, ""), invalid(&format!("missing field `{field}`")))),
    );
    let no_prices = [
        "\"\"",
        "\" \"",
        "\" 1\"",
        "\"1,5\"",
        "\"1.5.0\"",
        "\"NaN\"",
        "\"Infinity\"",
        "\"0x10\"",
        "\"1_000\"",
        "\"1_\"",
        "\"1_0.5_0\"",
        "\"1e1_0\"",
        "\"+1\"",
        "\"1.\"",
        "\".5\"",
        "\"£1\"",
        "\"1e\"",
        "\"१\"",
        "true",
        "null",
        "{}",
        "[1]",
    ];
    all.extend(no_prices.map(|price| add(item("price", price), invalid("is not a decimal number such as 12.50"))));
    all
}

/// Paths, methods and headers.
pub(crate) fn requests() -> Vec<Refusal> {
    let not_found = || (404, "not-found", "carts are at /cart/{cartId}".to_owned());
    let not_json = || (415, "unsupported-media-type", "content-type: application/json".to_owned());
    let not_uuid = |detail: &str| (400, "invalid-id", detail.to_owned());
    let header = |detail: &str| (400, "invalid-header", detail.to_owned());
    let (valid, checkout) = (item("", ""), format!("{CART}/checkout"));
    let of_product = format!("{CART}{PRODUCT}");
    let mut all = vec![
        Refusal::new(Method::GET, "/cart/mug", not_uuid("cartId 'mug' is not a UUID")),
        Refusal::new(Method::GET, format!("{CART}0"), not_uuid("cartId '7b6fc97b")),
        Refusal::new(Method::POST, "/cart/mug", not_uuid("cartId 'mug'")).body(valid.clone()),
        Refusal::new(Method::POST, "/cart/%20", not_uuid("cartId '%20'")).body(valid.clone()),
        // An encoded slash does not separate segments, and nothing is decoded twice.
        Refusal::new(Method::GET, "/cart/7b6fc97b%2Fcheckout", not_uuid("cartId '7b6fc97b%2Fcheckout'")),
        Refusal::new(Method::GET, "/cart/%2537b6fc97b-9d5f-4ac9-8a62-7cfd8b4eb0ff", not_uuid("cartId '%2537b6f")),
        Refusal::new(Method::POST, "/cart/mug/checkout", not_uuid("cartId 'mug'")),
        Refusal::new(Method::POST, "/cart/mug/commands", not_uuid("cartId 'mug'"))
            .body("{\"commands\":[{\"checkout\":{}}]}"),
        Refusal::new(Method::DELETE, format!("/cart/mug{PRODUCT}"), not_uuid("cartId 'mug'")),
        Refusal::new(Method::DELETE, format!("{CART}/productId/mug"), not_uuid("productId 'mug'")),
        Refusal::new(Method::PATCH, format!("/cart/mug{PRODUCT}"), not_uuid("cartId 'mug'")).body("{\"adjustBy\":1}"),
        Refusal::new(Method::PATCH, format!("{CART}/productId/mug"), not_uuid("productId 'mug'"))
            .body("{\"adjustBy\":1}"),
    ];
    all.extend(
        ["/cart", "/carts", "/CART/7b6fc97b-9d5f-4ac9-8a62-7cfd8b4eb0ff", "/health", "/health/well"]
            .map(|path| Refusal::new(Method::GET, path, not_found())),
    );
    for path in ["items", "productId", "checkout/now", &format!("{PRODUCT}/name")[1..]] {
        all.push(Refusal::new(Method::POST, format!("{CART}/{path}"), not_found()).body(valid.clone()));
    }
    for content_type in [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "text/json",
        "multipart/form-data; boundary=x",
    ] {
        for (method, path, body) in [
            (Method::POST, CART, valid.as_str()),
            (Method::PATCH, &of_product, "{\"adjustBy\":1}"),
            (Method::POST, &format!("{CART}/commands"), "{\"commands\":[{\"checkout\":{}}]}"),
        ] {
            let mut refusal = Refusal::new(method, path, not_json());
            refusal.body = Some(body.into());
            all.push(if content_type.is_empty() { refusal } else { refusal.header(("content-type", content_type)) });
        }
    }
    let key = "1 to 200 characters";
    let never = || (412, "version-mismatch", "it matches no version".to_owned());
    for (name, value, problem) in [
        ("idempotency-key", String::new(), header(key)),
        ("idempotency-key", "k".repeat(201), header(key)),
        ("idempotency-key", "ü".repeat(201), header(key)),
        ("if-match", "1".to_owned(), header("If-Match must be an ETag")),
        ("if-match", "\"1\", \"2\"".to_owned(), header("If-Match of a command must be one ETag")),
        ("if-match", "W/\"1\"".to_owned(), never()),
        ("if-match", "\"+1\"".to_owned(), never()),
        ("if-match", "\"01\"".to_owned(), never()),
        ("if-none-match", "\"1\"".to_owned(), header("If-None-Match of a command must be *")),
        ("if-none-match", "*, *".to_owned(), header("If-None-Match must be an ETag")),
        ("prefer", "wait=soon".to_owned(), header("Prefer: wait must be a number of whole seconds")),
    ] {
        let refusals = [
            Refusal::new(Method::POST, CART, problem.clone()).body(valid.clone()),
            Refusal::new(Method::PATCH, &of_product, problem.clone()).body("{\"adjustBy\":1}"),
            Refusal::new(Method::DELETE, &of_product, problem.clone()),
            Refusal::new(Method::POST, &checkout, problem),
        ];
        all.extend(refusals.map(|refusal| refusal.header((name, value.clone()))));
    }
    let contradiction = Refusal::new(Method::POST, &checkout, header("contradict each other"));
    all.push(contradiction.header(("if-match", "\"1\"")).header(("if-none-match", "*")));
    for (path, name, value) in [("/events", "if-match", "\"1\""), ("/events", "if-none-match", "*")] {
        let problem = header("this path has no ETag");
        all.push(Refusal::new(Method::GET, format!("{CART}{path}"), problem).header((name, value)));
    }
    for encoding in ["gzip", "identity, br", "x-unknown"] {
        let problem = (415, "unsupported-content-encoding", "without Content-Encoding".to_owned());
        all.push(add(valid.clone(), problem).header(("content-encoding", encoding)));
    }
    for (name, value, detail) in
        [("if-match", "1", "If-Match must be"), ("if-none-match", "\"1\"", "If-None-Match of a command must be *")]
    {
        let batch = batch("{\"commands\":[{\"checkout\":{}}]}", header(detail));
        all.push(batch.header((name, value)));
    }
    all
}
