// The document: making elements, and changing only what differs, so that a selection, the focus and the place of a screen reader
// stay where they are.

const byId = (id) => document.getElementById(id);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false && child !== ""));
  return element;
}

/** An HTML element. Texts are texts: nothing that the cluster says is read as HTML. */
function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function sameKind(one, other) {
  return one.nodeType === other.nodeType && one.nodeName === other.nodeName;
}

/** Makes the children of `there` what those of `wanted` are, and leaves what is equal. */
function patch(there, wanted) {
  const children = [...wanted.childNodes];
  children.forEach((child, at) => {
    const old = there.childNodes[at];
    if (!old) there.append(child);
    else if (!sameKind(old, child)) old.replaceWith(child);
    else if (child.nodeType === Node.TEXT_NODE) {
      if (old.data !== child.data) old.data = child.data;
    } else {
      for (const { name } of [...old.attributes]) if (!child.hasAttribute(name)) old.removeAttribute(name);
      for (const { name, value } of child.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
      patch(old, child);
    }
  });
  while (there.childNodes.length > children.length) there.lastChild.remove();
}

/** Shows these children in the element with this id. */
function show(id, ...children) {
  patch(byId(id), el("div", {}, ...children));
}

function say(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}
