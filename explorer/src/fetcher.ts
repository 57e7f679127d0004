/** How the explorer talks to the API: POST for queries and mutations, one graphql-transport-ws socket for subscriptions. */
import { createGraphiQLFetcher, type Fetcher } from "@graphiql/toolkit";
import { getOperationAST, GraphQLError, parse, type DocumentNode } from "graphql";
import { createClient } from "graphql-ws";

import { fillIn, noteMade } from "./made";
import { accessToken, ENDPOINT, renew, session } from "./session";

interface Answer {
  data?: unknown;
  errors?: { extensions?: { code?: string } }[];
}

let open: WebSocket | null = null;

const socket = createClient({
  url: `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${ENDPOINT}`,
  connectionParams: async () => {
    const token = await accessToken();
    return token === null ? {} : { authorization: `Bearer ${token}` };
  },
  shouldRetry: () => true,
  retryAttempts: 10,
  on: {
    connected: (connection) => {
      open = connection as WebSocket;
    },
    closed: () => {
      open = null;
    },
  },
});

/**
 * When somebody else signed in or out, what streams now must be asked for again, with the new rights. When only the
 * token is new, our server takes it in a `ping` on the socket that is open, and the streams go on untouched.
 */
let known = session.get()?.username;
session.subscribe(() => {
  const current = session.get();
  if (current?.username !== known) socket.terminate();
  else if (current !== null && open?.readyState === WebSocket.OPEN) {
    open.send(JSON.stringify({ type: "ping", payload: { authorization: `Bearer ${current.accessToken}` } }));
  }
  known = current?.username;
});

/** The token of whoever is signed in, unless the tab's own headers bring another. */
async function authorizedFetch(url: RequestInfo | URL, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  const ownToken = headers.has("authorization");
  const send = async () => {
    const token = ownToken ? null : await accessToken();
    if (token !== null) headers.set("authorization", `Bearer ${token}`);
    return fetch(url, { ...init, headers });
  };
  const response = await send();
  if (ownToken || session.get() === null) return response;
  const answer = (await response.clone().json().catch(() => ({}))) as Answer;
  if (!answer.errors?.some((error) => error.extensions?.code === "UNAUTHENTICATED")) return response;
  return renew().then(send, () => response);
}

const send = createGraphiQLFetcher({
  url: ENDPOINT,
  fetch: authorizedFetch,
  wsClient: socket,
  enableIncrementalDelivery: false,
});

/**
 * Sends an operation as the editors show it now. GraphiQL reads the document a moment after each change, so what it
 * hands over with a quick press of the button may still belong to the tab before.
 */
export const fetcher: Fetcher = async (params, options) => {
  let document: DocumentNode;
  let variables: unknown;
  try {
    document = parse(params.query);
    variables = fillIn(params.variables);
  } catch (error) {
    return { errors: [error instanceof GraphQLError ? error : new GraphQLError(String((error as Error).message))] };
  }
  const operation = getOperationAST(document, params.operationName) ?? getOperationAST(document);
  const answer = await send(
    { ...params, variables, operationName: operation?.name?.value ?? params.operationName },
    { ...options, documentAST: document },
  );
  if (operation?.operation === "mutation") noteMade((answer as Answer).data);
  return answer;
};
