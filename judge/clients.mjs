// GraphQL clients at work: each runs a query, mutations, and a subscription whose connection is cut and that goes on.
//
// They speak to the server through a wire of ours, which cuts every connection at once. While it is cut things happen;
// what the client has seen in the end has to be everything, once, in order.
import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import { ApolloClient, ApolloLink, HttpLink, InMemoryCache, gql } from "@apollo/client";
import { GraphQLWsLink } from "@apollo/client/link/subscriptions";
import { Client, cacheExchange, fetchExchange, subscriptionExchange } from "@urql/core";
import { getOperationAST, parse } from "graphql";
import { createClient as overSSE } from "graphql-sse";
import { createClient as overWebSocket } from "graphql-ws";

const server = new URL(process.env.URL);
const { TOKEN: token, PROJECT: projectId } = process.env;
const authorization = `Bearer ${token}`;
const SECONDS = 60;

const QUERY = "query { viewer { user { username } } }";
const MUTATION = `mutation ($input: CreateDatasetInput!) {
  createDataset(input: $input) { dataset { id name } errors { message } }
}`;
const SUBSCRIPTION = `subscription ($filter: EventFilter!, $after: String) {
  events(filter: $filter, after: $after) {
    __typename
    ... on Event { cursor subjectId }
    ... on StreamCaughtUp { cursor }
  }
}`;

class Wire {
  #ends = new Set();
  #listener = net.createServer((near) => {
    const far = net.connect(Number(server.port || 80), server.hostname);
    for (const [end, other] of [[near, far], [far, near]]) {
      this.#ends.add(end);
      end.on("error", () => {}).on("close", () => { this.#ends.delete(end); other.destroy(); });
      end.pipe(other);
    }
  });

  async open() {
    this.#listener.listen(0, "127.0.0.1");
    await once(this.#listener, "listening");
    this.address = `127.0.0.1:${this.#listener.address().port}`;
    return this;
  }

  cut() {
    for (const end of this.#ends) end.resetAndDestroy();
  }

  close() {
    this.cut();
    this.#listener.close();
  }
}

// What each client is asked to do: `run` a query or mutation, `watch` a subscription with items going to `next`.
// `variables()` is asked again for each connection, so a client that comes back by itself says where it was.
const clients = {
  "graphql-ws"(wire) {
    const client = overWebSocket({
      url: `ws://${wire.address}/graphql`,
      connectionParams: { authorization },
      // By default it gives up on what Node calls an error; in a browser a cut connection is a close.
      shouldRetry: () => true,
      retryWait: async () => {},
    });
    return {
      run: (query, variables) =>
        new Promise((resolve, reject) => client.subscribe({ query, variables }, { next: resolve, error: reject, complete() {} })),
      watch: (query, variables, next, error) =>
        client.subscribe({ query, get variables() { return variables(); } }, { next, error, complete: () => error(new Error("completed")) }),
      close: () => client.dispose(),
    };
  },

  "graphql-sse"(wire) {
    const client = overSSE({ url: `http://${wire.address}/graphql/stream`, headers: { authorization }, retry: async () => {} });
    return {
      run: (query, variables) =>
        new Promise((resolve, reject) => client.subscribe({ query, variables }, { next: resolve, error: reject, complete() {} })),
      watch: (query, variables, next, error) =>
        client.subscribe({ query, get variables() { return variables(); } }, { next, error, complete: () => error(new Error("completed")) }),
      close: () => client.dispose(),
    };
  },

  "Apollo Client"(wire) {
    const socket = overWebSocket({ url: `ws://${wire.address}/graphql`, connectionParams: { authorization }, retryAttempts: 0 });
    const client = new ApolloClient({
      cache: new InMemoryCache(),
      link: ApolloLink.split(
        ({ operationType }) => operationType === "subscription",
        new GraphQLWsLink(socket),
        new HttpLink({ uri: `http://${wire.address}/graphql`, headers: { authorization } }),
      ),
    });
    return {
      run: (document, variables) => {
        const isQuery = getOperationAST(parse(document)).operation === "query";
        return isQuery ? client.query({ query: gql(document), variables }) : client.mutate({ mutation: gql(document), variables });
      },
      watch: again((query, variables, next, lost) =>
        client.subscribe({ query: gql(query), variables, fetchPolicy: "no-cache" }).subscribe({
          next: (result) => (result.error ? lost(result.error) : next(result)),
          error: lost,
          complete: () => lost(new Error("completed")),
        })),
      close: () => { client.stop(); socket.dispose(); },
    };
  },

  urql(wire) {
    const socket = overWebSocket({ url: `ws://${wire.address}/graphql`, connectionParams: { authorization }, retryAttempts: 0 });
    const client = new Client({
      url: `http://${wire.address}/graphql`,
      preferGetMethod: false,
      fetchOptions: { headers: { authorization } },
      exchanges: [
        cacheExchange,
        fetchExchange,
        subscriptionExchange({
          forwardSubscription: (request) => ({
            subscribe: (sink) => ({ unsubscribe: socket.subscribe({ ...request, query: request.query ?? "" }, sink) }),
          }),
        }),
      ],
    });
    return {
      run: async (document, variables) => {
        const isQuery = getOperationAST(parse(document)).operation === "query";
        return client[isQuery ? "query" : "mutation"](document, variables ?? {}).toPromise();
      },
      watch: again((query, variables, next, lost) =>
        client.subscription(query, variables).subscribe((result) => (result.error ? lost(result.error) : next(result)))),
      close: () => socket.dispose(),
    };
  },
};

// For clients that leave it to the application to subscribe again once a connection is lost.
function again(subscribe) {
  return (query, variables, next, error) => {
    let left = 20;
    const start = () => {
      let over = false;
      subscribe(query, variables(), next, (reason) => {
        if (over) return;
        over = true;
        if (--left === 0) error(reason);
        else setTimeout(start, 100);
      });
    };
    start();
  };
}

async function judge(name) {
  const wire = await new Wire().open();
  const client = clients[name](wire);
  try {
    const answer = await client.run(QUERY);
    assert.equal(typeof answer.data.viewer.user.username, "string", JSON.stringify(answer));

    const made = [];
    const create = async (through) => {
      const input = { projectId, name: `${name} ${made.length}` };
      const { data } = await through(MUTATION, { input });
      assert.deepEqual(data.createDataset.errors, []);
      assert.equal(data.createDataset.dataset.name, input.name);
      made.push(data.createDataset.dataset.id);
    };
    // Past the wire, for what happens while it is cut.
    const beside = async (query, variables) => {
      const headers = { authorization, "content-type": "application/json" };
      return (await fetch(new URL("/graphql", server), { method: "POST", headers, body: JSON.stringify({ query, variables }) })).json();
    };

    let cursor = null;
    const seen = [];
    let caughtUp = 0;
    let notice = () => {};
    let failure = null;
    const mine = () => seen.filter((id) => made.includes(id));
    const until = async (what, condition) => {
      const deadline = Date.now() + SECONDS * 1000;
      while (!condition()) {
        if (failure) throw failure;
        if (Date.now() > deadline) throw new Error(`waited ${SECONDS} s for ${what}: ${mine().length} of ${made.length} seen`);
        await Promise.race([new Promise((resolve) => { notice = resolve; }), new Promise((resolve) => setTimeout(resolve, 200))]);
      }
    };
    client.watch(
      SUBSCRIPTION,
      () => ({ filter: { projectIds: [projectId], types: ["DATASET_CREATED"] }, after: cursor }),
      ({ data, errors }) => {
        if (errors) { failure = new Error(JSON.stringify(errors)); return; }
        const item = data.events;
        cursor = item.cursor ?? cursor;
        if (item.__typename === "Event") seen.push(item.subjectId);
        if (item.__typename === "StreamCaughtUp") caughtUp += 1;
        notice();
      },
      (reason) => { failure = reason instanceof Error ? reason : new Error(JSON.stringify(reason)); notice(); },
    );
    await until("the subscription", () => caughtUp === 1);
    for (let i = 0; i < 3; i += 1) await create(client.run);
    await until("three events", () => mine().length === 3);

    wire.cut();
    for (let i = 0; i < 3; i += 1) await create(beside);
    await until("the subscription to go on", () => caughtUp === 2);
    await create(beside);
    await until("every event", () => mine().length >= made.length);
    assert.deepEqual(mine(), made, "each event once and in order");
    console.log(`${name}: query, ${made.length} mutations, a subscription cut and resumed without gap or repeat`);
  } finally {
    client.close();
    wire.close();
  }
}

let failed = false;
for (const name of Object.keys(clients)) {
  try {
    await judge(name);
  } catch (error) {
    failed = true;
    console.log(`${name}: ${error.stack ?? error}`);
  }
}
process.exit(failed ? 1 : 0);
