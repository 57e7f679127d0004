/** The pane «Main job»: every step from a new project to a prediction, and the IDs made on the way. */
import { useGraphiQL, useGraphiQLActions, type GraphiQLPlugin } from "@graphiql/react";

import { forgetMade, made } from "./made";
import { steps, type Step } from "./operations";
import { useStore } from "./store";

/** By the text itself: the operation name GraphiQL keeps for a tab can be that of the tab before. */
function holds(tab: { query: string | null } | undefined, step: Step): boolean {
  return new RegExp(`^${step.kind} ${step.operation}\\b`, "m").test(tab?.query ?? "");
}

const SIGN = { query: "Q", mutation: "M", subscription: "S" };

function Steps() {
  const { tabs, activeTabIndex, queryEditor, variableEditor } = useGraphiQL((state) => ({
    tabs: state.tabs,
    activeTabIndex: state.activeTabIndex,
    queryEditor: state.queryEditor,
    variableEditor: state.variableEditor,
  }));
  const { addTab, changeTab, stop } = useGraphiQLActions();
  const ids = Object.entries(useStore(made));

  const open = (step: Step) => {
    const index = tabs.findIndex((tab) => holds(tab, step));
    if (index >= 0) {
      changeTab(index);
      return;
    }
    stop(); // a stream would go on into the new tab
    addTab();
    queryEditor?.setValue(step.query);
    variableEditor?.setValue(step.variables);
  };

  return (
    <section className="steps" aria-label="Main job">
      <div className="graphiql-doc-explorer-title">Main job</div>
      <p className="steps-hint">
        From a new project to a prediction. <code>$project</code> and its like in the variables stand for what you made
        last.
      </p>
      <ol>
        {steps.map((step) => (
          <li key={step.operation}>
            <button
              type="button"
              className={holds(tabs[activeTabIndex], step) ? "step step-active" : "step"}
              onClick={() => open(step)}
            >
              <span className={`sign sign-${step.kind}`} title={step.kind}>
                {SIGN[step.kind]}
              </span>
              <span>
                <span className="step-title">{step.title}</span>
                <span className="step-operation">{step.operation}</span>
              </span>
            </button>
          </li>
        ))}
      </ol>
      {ids.length > 0 && (
        <>
          <div className="steps-made">
            <span>Made last</span>
            <button type="button" className="bar-link" onClick={forgetMade}>
              forget
            </button>
          </div>
          <dl>
            {ids.map(([type, id]) => (
              <div key={type}>
                <dt>${type}</dt>
                <dd title={id}>{id}</dd>
              </div>
            ))}
          </dl>
        </>
      )}
    </section>
  );
}

function StepsIcon() {
  return (
    <svg viewBox="0 0 20 20" fill="none" stroke="currentColor" strokeWidth="1.6" strokeLinecap="round" strokeLinejoin="round" aria-hidden>
      <path d="m2.5 5 1.3 1.3L6.3 3.5M2.5 12l1.3 1.3 2.5-2.8M10 5h7.5M10 12h7.5M10 17h5" />
    </svg>
  );
}

export const STEPS_PLUGIN: GraphiQLPlugin = { title: "Main job", icon: StepsIcon, content: Steps };
