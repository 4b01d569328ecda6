/** Up to this size a piece is copied together with its neighbours. */
const smallMax = 4 * 1024;

/**
 * The same bytes in fewer buffers: small neighbours are joined, because each piece of a gathered write costs
 * Node and the kernel more than copying so few bytes does.
 */
export function gather(pieces: readonly Uint8Array[]): readonly Uint8Array[] {
  const gathered: Uint8Array[] = [];
  for (let i = 0; i < pieces.length;) {
    const end = endOfSmall(pieces, i);
    if (end - i > 1) {
      gathered.push(Buffer.concat(pieces.slice(i, end)));
      i = end;
    } else {
      gathered.push(pieces[i++]!);
    }
  }
  return gathered;
}

function endOfSmall(pieces: readonly Uint8Array[], from: number): number {
  let end = from;
  while (end < pieces.length && pieces[end]!.length <= smallMax) end++;
  return end;
}
