import { topic } from '@rookery/nest';
import { IsInt, IsString, Length, Matches, Max, Min } from 'class-validator';

/** One flight that left, as the publisher sends it and the statistics service receives it: checked on both sides. */
export class Departure {
  /** Local time, `YYYY/MM/DD hh:mm`. */
  @Matches(/^\d{4}\/\d\d\/\d\d \d\d:\d\d$/)
  date!: string;

  /** Minutes late; negative when early. */
  @IsInt()
  @Min(-1_440)
  @Max(14_400)
  delay!: number;

  /** Miles. */
  @IsInt()
  @Min(0)
  distance!: number;

  @IsString()
  @Length(3, 4)
  origin!: string;

  @IsString()
  @Length(3, 4)
  destination!: string;

  /** How many departures from this origin came before: 0, 1, 2 … It shows whether order was kept. */
  @IsInt()
  @Min(0)
  sequence!: number;
}

/** Keyed by origin: what leaves one airport stays in order. */
export const Departed = topic('flights.departed', {
  schema: Departure,
  key: (departure) => departure.origin,
  partitions: 4,
});
