// The audit suite of graphql-http: everything that GraphQL over HTTP says a server MUST, SHOULD and MAY do.
import { auditServer } from "graphql-http";

const { URL: url, TOKEN: token } = process.env;

const results = await auditServer({
  url: `${url}/graphql`,
  fetchFn: (to, init) => fetch(to, { ...init, headers: { ...init?.headers, authorization: `Bearer ${token}` } }),
});
const failed = results.filter((result) => result.status !== "ok");
for (const result of failed) console.log(`${result.id} ${result.name}: ${result.status}, ${result.reason}`);
console.log(`graphql-http: ${results.length - failed.length} of ${results.length}`);
process.exit(failed.length === 0 && results.length >= 61 ? 0 : 1);
