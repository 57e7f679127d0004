/** The operations of the main job: the very files that `headai demo` sends. */
import examples from "../../headai/operations/examples.json";

const texts = import.meta.glob<string>("../../headai/operations/*.graphql", {
  query: "?raw",
  import: "default",
  eager: true,
});

/** The text of an operation's file. */
export function text(operation: string): string {
  const found = texts[`../../headai/operations/${operation}.graphql`];
  if (found === undefined) throw new Error(`There is no file for the operation ${operation}.`);
  return found;
}

export interface Step {
  operation: string;
  title: string;
  kind: "query" | "mutation" | "subscription";
  query: string;
  variables: string;
  opensAsTab: boolean;
}

/** Every step of the main job, in order. */
export const steps: Step[] = examples.map(({ operation, step, tab, variables }) => ({
  operation,
  title: step,
  kind: /^(query|mutation|subscription)\b/m.exec(text(operation))?.[1] as Step["kind"],
  query: text(operation),
  variables: Object.keys(variables).length === 0 ? "" : JSON.stringify(variables, null, 2),
  opensAsTab: tab,
}));

/** The short title of the step that makes an ID of this type, for messages. */
export const makerOf: Record<string, string> = {
  project: "CreateProject",
  dataset: "CreateDataset",
  upload: "StartUpload",
  datasetversion: "StartUpload",
  run: "CreateTrainingRun",
  model: "CreateModel",
  modelversion: "CreateModelVersion",
};
