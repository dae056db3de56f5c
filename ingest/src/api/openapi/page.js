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
});
