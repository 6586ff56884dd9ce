"""Stands in for the SDK's module of that name: the fields of an alert, each with its default."""


class AlertInfo:
    def __init__(self):
        self.environment = None
        self.ticket_id = None
        self.description = None
        self.display_id = None
        self.reason = None
        self.name = None
        self.source_system_url = None
        self.source_rule_identifier = None
        self.device_vendor = None
        self.device_product = None
        self.start_time = None
        self.end_time = None
        self.is_test_case = False
        self.priority = -1
        self.rule_generator = None
        self.source_grouping_identifier = None
        self.extensions = {}
        self.events = []
        self.attachments = []
        self.siem_alert_id = None
