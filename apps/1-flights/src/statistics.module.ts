import { Module, type DynamicModule } from '@nestjs/common';
import { sidecar } from '@rookery/kafka';
import { RookeryModule } from '@rookery/nest';
import { DelayStatistics } from './delay-statistics.ts';
import { StatisticsController } from './statistics.controller.ts';

export interface StatisticsOptions {
  /** The sidecar, `tcp://host:port`. */
  readonly url: string;
  /** Consumer group: another one reads everything again. */
  readonly group: string;
}

@Module({ controllers: [StatisticsController], providers: [DelayStatistics] })
export class StatisticsModule {
  static with({ url, group }: StatisticsOptions): DynamicModule {
    return {
      module: StatisticsModule,
      imports: [RookeryModule.forRoot({ service: group, connections: { default: sidecar(url) } })],
    };
  }
}
