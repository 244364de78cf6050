// A page with state: what is in the basket is only here, so that a reload would empty it.
import "./style.css";
import { price } from "./price.js";
import { title } from "./title.js";

const heading = document.querySelector("#title");
const cost = document.querySelector("#price");
const basket = document.querySelector("#basket");
let count = 0;

heading.textContent = title;
cost.textContent = price;
basket.addEventListener("click", () => {
  count += 1;
  basket.textContent = String(count);
});

import.meta.hot?.accept("./title.js", (fresh) => {
  heading.textContent = fresh.title;
});
import.meta.hot?.accept("./price.js", (fresh) => {
  cost.textContent = fresh.price;
});
