export const title = "Hello from the shop";
