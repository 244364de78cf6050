export const price = "2.40";
