// An event stream does not end by itself, and Swagger UI shows a response when all of it has come: it gets what came in this time,
// up to this length.
const STREAM_MS = 3000;
const STREAM_CHARACTERS_MAX = 100000;

async function readStream(url, options) {
  const response = await fetch(url, options);
  const isStream = response.headers.get("content-type")?.startsWith("text/event-stream");
  if (!isStream) return response;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  // A stream that broke cannot be cancelled.
  setTimeout(() => reader.cancel().catch(() => {}), STREAM_MS);
  let text = "";
  while (text.length < STREAM_CHARACTERS_MAX) {
    const { done, value } = await reader.read();
    if (done) break;
    text += value;
  }
  await reader.cancel();
  return new Response(text, { status: response.status, headers: response.headers });
}

// Each operation has an address: /docs#/commands/addItem.
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#page",
  deepLinking: true,
  tryItOutEnabled: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
  // A token is forgotten with the page.
  persistAuthorization: false,
  // Otherwise a page that is not on localhost sends its address to a validator elsewhere.
  validatorUrl: null,
  requestInterceptor: (request) => {
    if (request.headers.accept === "text/event-stream") request.userFetch = readStream;
    return request;
  },
});
