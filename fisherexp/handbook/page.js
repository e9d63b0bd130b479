const field = document.getElementById("search");
const cards = [...document.querySelectorAll(".card")].map((card) => [card, card.textContent.toLowerCase()]);
const sections = [...document.querySelectorAll("section")];

function search() {
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const [card, text] of cards) {
    card.hidden = !words.every((word) => text.includes(word));
    shown += !card.hidden;
  }
  for (const section of sections) section.hidden = !section.querySelector(".card:not([hidden])");
  document.getElementById("count").textContent = `${shown} of ${cards.length}`;
}

field.addEventListener("input", search);
search();
