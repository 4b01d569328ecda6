/**
 * What to do with a partition's files after a start, as tables over what can be found. Each table asks for a few
 * facts, and every combination of them that a disk can come to show is in exactly one row: `recovery.test.ts`
 * walks them all, and builds a directory for every row. Nothing here touches a file; `log-loader.ts` looks for the
 * facts and does what the rows say.
 */

export interface Row<Facts, Action> {
  /** `@A` and so on, by which tests and documents call it. */
  readonly label: string;
  readonly applies: (facts: Facts) => boolean;
  readonly action: Action;
}

export interface Table<Facts, Action> {
  readonly rows: readonly Row<Facts, Action>[];
  /** Every value that each fact may have. */
  readonly domain: { readonly [Fact in keyof Facts]: readonly Facts[Fact][] };
  /** Combinations that no disk shows, each for the reason beside it. */
  readonly impossible?: (facts: Facts) => boolean;
}

export function decide<Facts, Action>(table: Table<Facts, Action>, facts: Facts): Row<Facts, Action> {
  return table.rows.find(({ applies }) => applies(facts))!;
}

const either = [true, false] as const;

// --- The log's bytes -------------------------------------------------------------------------------------------

/**
 * How a look at the log from its first segment to its last ended. Segments that are known to be on the platter are
 * looked at by their ends, the others batch by batch.
 *
 *   whole       everything fits together, up to the last byte of the last file
 *   torn        a batch is cut or fails its checks, or there are bytes that are no batch
 *   gap         a segment does not begin where the one before it ended; a missing and an empty one look the same
 *   short       everything fits together, and it ends before the recovery point; or, after an orderly stop, before
 *               the log start
 *   headless    the first segment begins after the log start
 *   distrusted  as far as may be trusted everything fits together: a sync failed there
 */
export type Found = 'whole' | 'torn' | 'gap' | 'short' | 'headless' | 'distrusted';

/** Whether the place where the look ended was known to be on the platter. */
export type Place = 'below the recovery point' | 'above it' | 'nobody knows';

export interface LogFacts {
  /** An earlier run has found rot, and nobody has repaired it. */
  readonly isRemembered: boolean;
  /** The marker of an orderly stop was there. */
  readonly isMarked: boolean;
  readonly found: Found;
  readonly place: Place;
}

/** `quarantine` changes nothing: what stands before the place is served, writes are refused, the operator decides. */
export type LogAction = 'keep' | 'cut' | 'quarantine';

/**
 *   @A remembered    A scrub, a compaction, a lookup or an earlier start has met rot. The bytes may read well today,
 *                    from a page cache or a disk that has moved a sector; they have lied once.
 *   @B clean         The broker stopped in order: every byte was synced and every index written before the marker.
 *                    The ends of the segments still fit together, so no batch is read.
 *   @C spoilt        The broker stopped in order, and the files do not fit together any more: somebody has cut or
 *                    removed one, or a copy of the directory is incomplete. Nothing of this is a crash's work.
 *   @D whole         The process died between two writes, or the page cache outlived it.
 *   @E torn tail     The power went while a batch was being written, or the process between two pieces of one write.
 *                    Nobody was told that it was safe, or it would be below the recovery point. What follows is cut
 *                    with it: a disk writes pages in any order, so whole batches may stand behind a hole.
 *   @F loose end     A segment was rolled, and the power went before the end of the one in front was on the platter,
 *                    while the new name was. It goes with the tail.
 *   @G rot           The bytes were on the platter, and the disk has changed them. To cut here would drop what was
 *                    acknowledged.
 *   @H lost segment  A file that was on the platter is gone, or has become empty: a file system check has moved it to
 *                    lost+found, or somebody has cleaned up.
 *   @I lost end      The last file has lost bytes that were on the platter: it was replaced by an older copy, or cut.
 *   @J lost head     The first file is gone, while the log start, which is put on the platter before files are
 *                    deleted, says that it should be there.
 *   @K no memory     The checkpoint of the recovery points is gone or damaged, so nobody can tell a torn tail from
 *                    rot; and there is one or the other.
 *   @L failed sync   The disk refused to keep some bytes. The kernel takes such pages for clean, so they may read well
 *                    until they leave the cache, and then be what was there before. They were never acknowledged.
 */
export const logTable: Table<LogFacts, LogAction> = {
  domain: {
    isRemembered: either,
    isMarked: either,
    found: ['whole', 'torn', 'gap', 'short', 'headless', 'distrusted'],
    place: ['below the recovery point', 'above it', 'nobody knows'],
  },
  impossible: ({ isRemembered, isMarked, found, place }) =>
    // What was remembered is not looked at again.
    (isRemembered && found !== 'whole') ||
    // Whole means: up to the recovery point and further.
    (found === 'whole' && place === 'below the recovery point') ||
    // Short is said of what is below a point that is known; after an orderly stop, of the log start too.
    (found === 'short' && place !== 'below the recovery point' && !isMarked) ||
    // A log whose sync has failed keeps the marker from being written, and its recovery point stays where trust ends.
    (found === 'distrusted' && (isMarked || place === 'below the recovery point')),
  rows: [
    { label: '@A', action: 'quarantine', applies: (f) => f.isRemembered },
    { label: '@B', action: 'keep', applies: (f) => fresh(f) && f.isMarked && f.found === 'whole' },
    { label: '@C', action: 'quarantine', applies: (f) => fresh(f) && f.isMarked && f.found !== 'whole' },
    { label: '@D', action: 'keep', applies: (f) => crashed(f) && f.found === 'whole' },
    {
      label: '@E',
      action: 'cut',
      applies: (f) => crashed(f) && f.found === 'torn' && f.place === 'above it',
    },
    { label: '@F', action: 'cut', applies: (f) => crashed(f) && f.found === 'gap' && f.place === 'above it' },
    { label: '@G', action: 'quarantine', applies: (f) => crashed(f) && f.found === 'torn' && isBelow(f) },
    { label: '@H', action: 'quarantine', applies: (f) => crashed(f) && f.found === 'gap' && isBelow(f) },
    { label: '@I', action: 'quarantine', applies: (f) => crashed(f) && f.found === 'short' },
    { label: '@J', action: 'quarantine', applies: (f) => crashed(f) && f.found === 'headless' },
    {
      label: '@K',
      action: 'quarantine',
      applies: (f) => crashed(f) && (f.found === 'torn' || f.found === 'gap') && f.place === 'nobody knows',
    },
    { label: '@L', action: 'cut', applies: (f) => crashed(f) && f.found === 'distrusted' },
  ],
};

const fresh = (f: LogFacts): boolean => !f.isRemembered;
const crashed = (f: LogFacts): boolean => !f.isRemembered && !f.isMarked;
const isBelow = (f: LogFacts): boolean => f.place === 'below the recovery point';

// --- The recovery point ----------------------------------------------------------------------------------------

export interface PointFacts {
  /** The checkpoint can be read. */
  readonly isReadable: boolean;
  /** It names the partition. */
  readonly isNamed: boolean;
  /** The marker of an orderly stop was there. */
  readonly isMarked: boolean;
}

/**
 *   @M kept       What the checkpoint says.
 *   @N young      The partition was made after the checkpoint was last written: nothing of it is known to be on the
 *                 platter.
 *   @O forgotten  The checkpoint is gone or damaged, but the broker stopped in order: everything was on the platter.
 *   @P lost       The checkpoint is gone or damaged after a crash. Every batch is read, and nothing is cut on a guess.
 */
export const pointTable: Table<PointFacts, 'the entry' | 'zero' | 'the end' | 'unknown'> = {
  domain: { isReadable: either, isNamed: either, isMarked: either },
  impossible: ({ isReadable, isNamed }) => isNamed && !isReadable,
  rows: [
    { label: '@M', action: 'the entry', applies: (f) => f.isReadable && f.isNamed },
    { label: '@N', action: 'zero', applies: (f) => f.isReadable && !f.isNamed },
    { label: '@O', action: 'the end', applies: (f) => !f.isReadable && f.isMarked },
    { label: '@P', action: 'unknown', applies: (f) => !f.isReadable && !f.isMarked },
  ],
};

// --- A segment's indexes ---------------------------------------------------------------------------------------

/**
 * What the offset index and the time index of a segment look like.
 *
 *   missing  one of the two files is not there
 *   empty    the offset index has no entry, and the log is long enough for many
 *   lying    its last entry does not lead to the batch that it speaks of
 *   fitting  it does
 */
export type IndexState = 'missing' | 'empty' | 'lying' | 'fitting';

export interface IndexFacts {
  readonly state: IndexState;
  /** The segment may have bytes that are not on the platter. */
  readonly isUnsynced: boolean;
  /** The machine has started anew since it was written. */
  readonly isPowerLost: boolean;
}

/**
 * An index has no checksum, so one that is there is believed as far as its last entry can be checked; every lookup
 * checks again what the entry leads to, and so no lie of an index is ever served (`segment.ts`).
 *
 *   @Q sound     The segment was sealed and its indexes synced with it.
 *   @R grown     The process was killed: the entries in the file are true, later ones were in memory. The scan that is
 *                due anyway adds them.
 *   @S unsure    The power went, and the index was not synced: each of its pages may be new, old or zeros.
 *   @T damaged   It is gone, empty or lies. An index is written in order and synced with its segment, so the file was
 *                deleted (by hand, as Kafka's users are told to do), or the disk has changed it.
 */
export const indexTable: Table<IndexFacts, 'keep' | 'extend' | 'rebuild'> = {
  domain: {
    state: ['missing', 'empty', 'lying', 'fitting'],
    isUnsynced: either,
    isPowerLost: either,
  },
  rows: [
    { label: '@Q', action: 'keep', applies: (f) => f.state === 'fitting' && !f.isUnsynced },
    {
      label: '@R',
      action: 'extend',
      applies: (f) => f.state === 'fitting' && f.isUnsynced && !f.isPowerLost,
    },
    {
      label: '@S',
      action: 'rebuild',
      applies: (f) => f.state === 'fitting' && f.isUnsynced && f.isPowerLost,
    },
    { label: '@T', action: 'rebuild', applies: (f) => f.state !== 'fitting' },
  ],
};

// --- Producer snapshots ----------------------------------------------------------------------------------------

export interface SnapshotFacts {
  /** Its CRC holds. */
  readonly isWhole: boolean;
  /** It speaks of an offset after the log's end. */
  readonly isPastEnd: boolean;
}

/**
 *   @U usable   The newest of these is where the replay of the batches begins.
 *   @V broken   The power went while it was being written, or the disk has changed it. An older one and more of the
 *               log tell the same; without any, the whole log does.
 *   @W ahead    The tail was cut, and it speaks of batches that are gone. Their offsets are given anew, so it must not
 *               be there when the log has grown past it again.
 */
export const snapshotTable: Table<SnapshotFacts, 'use' | 'skip' | 'remove'> = {
  domain: { isWhole: either, isPastEnd: either },
  rows: [
    { label: '@U', action: 'use', applies: (f) => f.isWhole && !f.isPastEnd },
    { label: '@V', action: 'skip', applies: (f) => !f.isWhole && !f.isPastEnd },
    { label: '@W', action: 'remove', applies: (f) => f.isPastEnd },
  ],
};

// --- Leader epochs ---------------------------------------------------------------------------------------------

/**
 * What `leader-epoch-checkpoint` looks like beside the batches.
 *
 *   missing       it is not there
 *   damaged       it is not in its form, or its epochs do not rise
 *   short         it does not say who wrote the log's first offset
 *   contradicted  the last batches say another epoch than it does; more than one, because an epoch lies outside the CRC
 *   fitting       none of these
 */
export type EpochsState = 'missing' | 'damaged' | 'short' | 'contradicted' | 'fitting';

export interface EpochFacts {
  readonly state: EpochsState;
  /** There are batches to read the epochs from. */
  readonly hasBatches: boolean;
}

/**
 *   @AD told     An epoch is on the platter before the first batch of it, so a crash leaves the file whole.
 *   @AE nobody's Nothing is written in the log, so nothing can be asked about it. The next leader makes the file.
 *   @AF untold   It was deleted by hand, or is of an older copy than the log, or the disk has changed it; or a crash
 *                took back a deletion of records whose epochs were forgotten already. Every batch says its epoch too.
 */
export const epochTable: Table<EpochFacts, 'keep' | 'rebuild'> = {
  domain: {
    state: ['missing', 'damaged', 'short', 'contradicted', 'fitting'],
    hasBatches: either,
  },
  // Batches are what contradicts.
  impossible: ({ state, hasBatches }) => state === 'contradicted' && !hasBatches,
  rows: [
    { label: '@AD', action: 'keep', applies: (f) => f.hasBatches && f.state === 'fitting' },
    { label: '@AE', action: 'keep', applies: (f) => !f.hasBatches },
    { label: '@AF', action: 'rebuild', applies: (f) => f.hasBatches && f.state !== 'fitting' },
  ],
};

// --- Names in the directory ------------------------------------------------------------------------------------

/** What the name of a file says that it is. */
export type FileKind =
  | 'log'
  | 'index'
  | 'snapshot'
  | 'of the partition'
  | 'cleaned'
  | 'swapped log'
  | 'swapped index'
  | 'deleted'
  | 'aside'
  | 'strange';

export interface FileFacts {
  readonly kind: FileKind;
  /** There is a `.log` of the same base offset. */
  readonly hasLog: boolean;
}

/**
 *   @X at home      What belongs to the log.
 *   @Y orphan       An index whose log is gone: the power went while a segment was being deleted, and of several
 *                   removals the disk kept some; or the log was lost, which the gap shows. It would be taken for the
 *                   index of the next segment that begins there.
 *   @Z unfinished   A compaction was writing it (`.cleaned`), a deletion had begun (`.deleted`), or a file was
 *                   being replaced (`.tmp`): the old ones are all there, so it goes.
 *   @AA swapped     A compaction's result, complete and on the platter when it got this name: it takes the place of the
 *                   segments that begin in its range.
 *   @AB index of it Made again with the swap, or of one that has ended.
 *   @AC strange     Nobody knows whose it is, so it is nobody's to delete.
 */
export const fileTable: Table<FileFacts, 'keep' | 'remove' | 'finish'> = {
  domain: {
    kind: [
      'log',
      'index',
      'snapshot',
      'of the partition',
      'cleaned',
      'swapped log',
      'swapped index',
      'deleted',
      'aside',
      'strange',
    ],
    hasLog: either,
  },
  impossible: ({ kind, hasLog }) => kind === 'log' && !hasLog,
  rows: [
    {
      label: '@X',
      action: 'keep',
      applies: ({ kind, hasLog }) =>
        kind === 'log' || kind === 'snapshot' || kind === 'of the partition' || (kind === 'index' && hasLog),
    },
    { label: '@Y', action: 'remove', applies: ({ kind, hasLog }) => kind === 'index' && !hasLog },
    {
      label: '@Z',
      action: 'remove',
      applies: ({ kind }) => kind === 'cleaned' || kind === 'deleted' || kind === 'aside',
    },
    { label: '@AA', action: 'finish', applies: ({ kind }) => kind === 'swapped log' },
    { label: '@AB', action: 'remove', applies: ({ kind }) => kind === 'swapped index' },
    { label: '@AC', action: 'keep', applies: ({ kind }) => kind === 'strange' },
  ],
};

export function kindOf(name: string): FileKind {
  if (/^\d{20}\.log$/.test(name)) return 'log';
  if (/^\d{20}\.(index|timeindex|txnindex)$/.test(name)) return 'index';
  if (/^\d{20}\.snapshot$/.test(name)) return 'snapshot';
  if (name === 'partition.metadata' || name === 'leader-epoch-checkpoint') return 'of the partition';
  if (/^\d{20}\.\w+\.cleaned$/.test(name)) return 'cleaned';
  if (/^\d{20}\.log\.swap$/.test(name)) return 'swapped log';
  if (/^\d{20}\.\w+\.swap$/.test(name)) return 'swapped index';
  if (/^\d{20}\.\w+\.deleted$/.test(name)) return 'deleted';
  return /^(\d{20}\.(snapshot|index|timeindex|txnindex)|partition\.metadata|leader-epoch-checkpoint)\.tmp$/.test(
    name,
  )
    ? 'aside'
    : 'strange';
}
