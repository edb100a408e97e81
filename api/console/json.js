// JSON with its numbers digit for digit: 12345678901234567890 is not rounded where the browser can tell
// its source text (https://tc39.es/proposal-json-parse-with-source/).

const exact = typeof JSON.rawJSON === "function";

function keep(_name, value, context) {
  if (typeof value === "number" && context?.source !== undefined && String(value) !== context.source) return JSON.rawJSON(context.source);
  return value;
}

export function parse(text) {
  return exact ? JSON.parse(text, keep) : JSON.parse(text);
}

export function pretty(value) {
  return JSON.stringify(value, null, 2);
}
