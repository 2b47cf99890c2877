"use strict";
// Nothing here is needed to read the report: it moves the cells of the film, and folds the list of sections on phones.
for (const film of document.querySelectorAll(".film")) {
  const frames = JSON.parse(film.querySelector(".frames").textContent);
  const labels = [...film.querySelectorAll(".labels li")].map((item) => item.textContent);
  const [slider, output, button] = ["input", "output", ".play"].map((name) => film.querySelector(name));
  const moving = film.querySelector(".moving");
  const seen = [...film.querySelectorAll(".seen")];
  const all = film.querySelector(".all");
  let timer = null;
  const show = () => {
    const k = Number(slider.value), xy = frames.xy[k];
    let dots = "";
    for (let i = 0; i < xy.length; i += 2) dots += `M${xy[i]} ${xy[i + 1]}h0`;
    moving.setAttribute("d", dots);
    for (const part of seen) {
      const near = part.dataset.time === frames.near[k];
      part.classList.toggle("near", near);
      if (near) all.append(part);
    }
    output.textContent = labels[k];
    slider.setAttribute("aria-valuetext", labels[k]);
  };
  const stop = () => {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
    button.setAttribute("aria-pressed", "false");
  };
  button.addEventListener("click", () => {
    if (timer !== null) return stop();
    if (Number(slider.value) === frames.xy.length - 1) slider.value = 0;
    button.textContent = "Pause";
    button.setAttribute("aria-pressed", "true");
    show();
    timer = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      show();
      if (Number(slider.value) === frames.xy.length - 1) stop();
    }, 120);
  });
  slider.addEventListener("input", () => { stop(); show(); });
  film.querySelector(".controls").hidden = false;
  show();
}
const menu = document.getElementById("menu");
if (window.matchMedia("(max-width: 75rem)").matches) menu.open = false;
