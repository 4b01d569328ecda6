import { expect, test } from 'vitest';
import { OpenNames } from './open-names.ts';

test('a file is where it was opened, and where it was renamed to', () => {
  const names = new OpenNames<string>();
  const place = names.add('/data/t-0/0.log', 'log');
  expect(place.path).toBe('/data/t-0/0.log');
  names.rename('/data/t-0/0.log', '/data/t-0/0.log.deleted');
  expect(place.path).toBe('/data/t-0/0.log.deleted');
  expect(names.at('/data/t-0/0.log')).toEqual([]);
  expect(names.at('/data/t-0/0.log.deleted')).toEqual(['log']);
});

test('a directory takes all that is below it along, and nothing beside it', () => {
  const names = new OpenNames<string>();
  const moved = [names.add('/data/t-1/0.log', 'a'), names.add('/data/t-1/deep/er', 'b')];
  const stayed = names.add('/data/t-10/0.log', 'c');
  names.rename('/data/t-1', '/data/t-1.gone');
  expect(moved.map(({ path }) => path)).toEqual(['/data/t-1.gone/0.log', '/data/t-1.gone/deep/er']);
  expect(stayed.path).toBe('/data/t-10/0.log');
  expect(names.at('/data/t-1')).toEqual([]);
  expect(names.at('/data/t-1.gone').sort()).toEqual(['a', 'b']);
});

test('several may be open under one name, and a name ends with the last of them', () => {
  const names = new OpenNames<string>();
  const first = names.add('/x', 'first');
  const second = names.add('/x', 'second');
  expect(names.at('/x')).toEqual(['first', 'second']);
  names.remove(first, 'first');
  expect(names.at('/x')).toEqual(['second']);
  names.remove(second, 'second');
  expect(names.at('/')).toEqual([]);
});

test('a rename of what nobody has open changes nothing', () => {
  const names = new OpenNames<string>();
  const place = names.add('/a/b', 'b');
  names.rename('/a/c', '/a/d');
  names.rename('/e', '/f');
  expect(place.path).toBe('/a/b');
  expect(names.at('/')).toEqual(['b']);
});
