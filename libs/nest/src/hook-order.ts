import type { Logger, Type } from '@nestjs/common';
import type { ModulesContainer } from '@nestjs/core';

/**
 * Puts a module at the end of Nest's order: its hooks run after all others at boot, before all others at
 * shutdown. The order follows each module's distance from the root, which nothing else can set.
 */
export function bootLast(modules: ModulesContainer, type: Type, logger: Logger): void {
  for (const module of modules.values()) {
    if (module.metatype !== type) continue;
    try {
      module.distance = -1;
    } catch {
      // Told below.
    }
    if (module.distance !== -1)
      logger.error(
        'This Nest does not let Rookery be last: handlers may run before other modules have booted, and after they have gone',
      );
  }
}
