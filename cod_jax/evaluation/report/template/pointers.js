// Moving the divider, and moving and enlarging the pictures, with one or two pointers.

/** Pointers: one moves the divider, or the picture when it is enlarged; two enlarge it. */
function drags(stage, handle, state, place, setZoom) {
  const pointers = new Map();
  let grip = null,
    spread = 0;
  stage.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    pointers.set(event.pointerId, event);
    stage.setPointerCapture(event.pointerId);
    stage.focus({ preventScroll: true });
    const rect = stage.getBoundingClientRect();
    const near = Math.abs(event.clientX - rect.left - (rect.width * state.split) / 100) < 28;
    grip = pointers.size > 1 ? null : near || state.zoom === 1 ? "divider" : "picture";
    if (grip === "divider") moveDivider(event);
    if (pointers.size === 2) spread = distance();
  });
  stage.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    pointers.set(event.pointerId, event);
    if (pointers.size === 2) {
      const next = distance(),
        [a, b] = pointers.values();
      setZoom((state.zoom * next) / spread, {
        clientX: (a.clientX + b.clientX) / 2,
        clientY: (a.clientY + b.clientY) / 2,
      });
      spread = next;
    } else if (grip === "divider") moveDivider(event);
    else if (grip === "picture") {
      Object.assign(state, {
        x: state.x + event.clientX - before.clientX,
        y: state.y + event.clientY - before.clientY,
      });
      place();
    }
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    stage.addEventListener(kind, (event) => {
      pointers.delete(event.pointerId);
      grip = null;
    });
  }

  function moveDivider(event) {
    const rect = stage.getBoundingClientRect();
    state.split = Math.max(0, Math.min(100, (100 * (event.clientX - rect.left)) / rect.width));
    place();
  }

  function distance() {
    const [a, b] = pointers.values();
    return Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY) || 1;
  }
}
