/**
 * Under these names Nest keeps what decorators say. Its constants live at different paths in Nest 11 and 12, the
 * names themselves have not changed.
 */
export const routeArguments = '__routeArguments__';
/** Classes with this mark get request-scoped enhancers of the application, as controllers do. */
export const entryProvider = '__entryProvider__';
export const customArgument = '__customRouteArgs__';
/** Guards, interceptors, pipes and filters, on a class or a method. */
export const enhancers = ['__guards__', '__interceptors__', '__pipes__', '__exceptionFilters__'] as const;
