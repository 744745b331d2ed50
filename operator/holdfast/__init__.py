"""The Holdfast operator: reconciles LLMService objects into highly available LLM serving."""
