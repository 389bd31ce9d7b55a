/** What a command could not do, as a sentence for the person who typed it; the program prints it and ends with 1. */
export class CommandFailed extends Error {
  override readonly name = 'CommandFailed'
}
