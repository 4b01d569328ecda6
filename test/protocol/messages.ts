import { catalogue, dataMessages, legacyProduce, type Message } from '@rookery/wire';

/** Every message that has a table, in the order of the catalogue. */
export const messages: readonly Message[] = [
  ...catalogue.flatMap((api) => [api.request, api.response]),
  legacyProduce.request,
  legacyProduce.response,
  ...dataMessages,
];

export const versionsOf = ({ versions: [min, max] }: Message): number[] =>
  Array.from({ length: max - min + 1 }, (_, i) => min + i);
