"""From a person's file to the batches of an epoch: read, recognise the form, split, batch."""
