const texts = JSON.parse(document.getElementById("texts").textContent);
const questions = [...document.querySelectorAll("details.question")];
const search = document.getElementById("search");
const count = document.getElementById("count");
let kind = "all";

function show() {
  const words = search.value.trim().toLowerCase();
  let shown = 0;
  for (const question of questions) {
    const wanted = (kind === "all" || question.dataset.kind === kind)
      && question.querySelector(".asked").textContent.toLowerCase().includes(words);
    question.hidden = !wanted;
    shown += wanted;
  }
  count.textContent = `${shown} of ${questions.length}`;
}

for (const button of document.querySelectorAll("nav button")) {
  button.addEventListener("click", () => {
    kind = button.dataset.kind;
    for (const other of document.querySelectorAll("nav button")) {
      other.setAttribute("aria-pressed", String(other === button));
    }
    show();
  });
}
if (search) {
  search.addEventListener("input", show);
  show();
}

for (const question of questions) {
  // The texts are in the page once, however many questions find them.
  question.addEventListener("toggle", () => {
    for (const place of question.querySelectorAll("[data-text]:empty")) {
      place.textContent = texts[place.dataset.text];
    }
  });
}
