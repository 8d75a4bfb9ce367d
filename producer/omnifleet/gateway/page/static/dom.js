// Elements from data. Texts become text nodes: nothing that a caller named or a model wrote is read as HTML.

/**
 * Make an element.
 * @param {string} name of the element
 * @param {Object} properties set on it; those with a hyphen, `for`, `role` and `class` as attributes
 * @param {...(Node|string|null)} children
 */
export function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [property, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (/-|^(for|role|class|list)$/.test(property)) element.setAttribute(property, value);
    else element[property] = value;
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Say something to those who do not see it change. The same again is said again. */
export function announce(text) {
  const region = byId("announcements");
  region.textContent = "";
  requestAnimationFrame(() => (region.textContent = text));
}

/** Copy a text; where the browser does not let us (plain HTTP from afar), select it, so that Ctrl+C does. */
export async function copyText(element) {
  try {
    await navigator.clipboard.writeText(element.textContent);
    announce("Copied");
    return true;
  } catch {
    getSelection().selectAllChildren(element);
    announce("Selected: press Ctrl and C to copy");
    return false;
  }
}

/** A button that copies the text of an element. */
export function copyButton(element, about) {
  const button = make("button", { type: "button", class: "quiet", "aria-label": `Copy ${about}` }, "Copy");
  button.addEventListener("click", async () => {
    button.textContent = (await copyText(element)) ? "Copied" : "Selected";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  return button;
}

/** Seconds as people read them: 2.45 s, 1:02.45. */
export function seconds(value) {
  if (value < 60) return `${value.toFixed(2)} s`;
  const minutes = Math.floor(value / 60);
  return `${minutes}:${(value - minutes * 60).toFixed(2).padStart(5, "0")}`;
}
