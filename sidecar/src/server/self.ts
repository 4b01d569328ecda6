/** This broker as clients know it: who it is, and where it says that it can be reached. */
export interface Self {
  readonly nodeId: number;
  readonly clusterId: string;
  /** The advertised host and port, which need not be the ones listened on. */
  readonly host: string;
  readonly port: number;
  readonly rack: string | null;
}
