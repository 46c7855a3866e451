"""The example application: subscriptions and expenses of many users, event-sourced, with six read models."""
