"""GradCache by tokens: large batches in little memory, with the gradients of the whole batch."""
