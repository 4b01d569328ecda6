import {
  Body,
  Controller,
  Get,
  HttpCode,
  NotFoundException,
  Param,
  Post,
  ValidationPipe,
} from '@nestjs/common';
import { Payload, Rookery, Subscribe } from '@rookery/nest';
import { DelayStatistics, type AirportDelays } from './delay-statistics.ts';
import { Departed, Departure } from './departure.ts';

/** The service's two edges: departures come in from the log or by HTTP, statistics are read by HTTP. */
@Controller()
export class StatisticsController {
  constructor(
    private readonly statistics: DelayStatistics,
    private readonly rookery: Rookery,
  ) {}

  @Subscribe(Departed)
  departed(@Payload() departure: Departure): void {
    this.statistics.record(departure);
  }

  /** Publishes; the statistic changes when the event comes back from the log. */
  @Post('departures')
  @HttpCode(202)
  async depart(
    @Body(new ValidationPipe({ transform: true, whitelist: true })) departure: Departure,
  ): Promise<{ position: string }> {
    const { topic, partition, offset } = await this.rookery.publish(Departed, departure);
    return { position: `${topic}/${partition}@${offset}` };
  }

  @Get('airports')
  airports(): AirportDelays[] {
    return this.statistics.table();
  }

  @Get('airports/:origin')
  airport(@Param('origin') origin: string): AirportDelays {
    const airport = this.statistics.of(origin);
    if (airport === undefined) throw new NotFoundException(`nothing has left ${origin} yet`);
    return airport;
  }

  @Get('progress')
  progress(): { handled: number; repeated: number; skipped: number } {
    return this.statistics.progress();
  }
}
