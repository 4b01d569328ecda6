/** Whether the promise settled in time. */
export async function within(ms: number, promise: Promise<unknown> | null): Promise<boolean> {
  if (promise === null) return true;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => (timer = setTimeout(resolve, ms, false)));
  const inTime = await Promise.race([promise.then(() => true), late]);
  clearTimeout(timer);
  return inTime;
}
