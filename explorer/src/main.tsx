import "./nonce";

import "graphiql/setup-workers/vite";
import "@graphiql/react/style.css";
import "graphiql/graphiql.css";
import "@graphiql/plugin-doc-explorer/style.css";
import "@graphiql/plugin-history/style.css";
import "@graphiql/plugin-explorer/style.css";
import "./style.css";

import { explorerPlugin } from "@graphiql/plugin-explorer";
import { HISTORY_PLUGIN } from "@graphiql/plugin-history";
import { GraphiQL } from "graphiql";
import { createRoot } from "react-dom/client";

import { fetcher } from "./fetcher";
import { steps } from "./operations";
import { scheduleRenewal, session } from "./session";
import { Bar } from "./SignIn";
import { STEPS_PLUGIN } from "./steps";
import { useStore } from "./store";

const PLUGINS = [STEPS_PLUGIN, explorerPlugin({ showAttribution: false }), HISTORY_PLUGIN];
const TABS = steps.filter((step) => step.opensAsTab).map(({ query, variables }) => ({ query, variables }));

function showActiveTab(): void {
  requestAnimationFrame(() => {
    document.querySelector(".graphiql-tab-active")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  });
}

function Explorer() {
  const signedIn = useStore(session) !== null;
  return (
    <>
      <Bar />
      <GraphiQL
        fetcher={fetcher}
        schema={signedIn ? undefined : null}
        schemaDescription
        inputValueDeprecation
        plugins={PLUGINS}
        visiblePlugin={STEPS_PLUGIN}
        defaultTabs={TABS}
        defaultEditorToolsVisibility="variables"
        shouldPersistHeaders={false}
        onTabChange={showActiveTab}
      >
        <GraphiQL.Logo>
          <span />
        </GraphiQL.Logo>
      </GraphiQL>
    </>
  );
}

/** How the page is divided at first between the pane on the left and the editors: the share of the pane. */
const PANE_SHARE = "graphiql:docExplorerFlex";
if (localStorage.getItem(PANE_SHARE) === null) localStorage.setItem(PANE_SHARE, "0.28");

scheduleRenewal();
createRoot(document.getElementById("root")!).render(<Explorer />);
