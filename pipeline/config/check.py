"""The settings of jobs/check_archive.py, as conf/check_archive.yaml lists them."""

from pipeline.config.section import Count, Positive, Section, Uri


class CheckConfig(Section):
    """Settings of jobs/check_archive.py."""

    catalog: Uri
    """URI of the table of items, as the run had it"""
    catalog_root: Uri | None = None
    """URI that relative URIs in the catalog are below; null takes the catalog's folder"""
    output: Uri
    """URI prefix of the run: images/, manifest/ and run/ lie below"""
    show: Count = 10
    """names shown of each kind of finding"""
    lease_seconds: Positive = 60.0
    """with --compact: seconds without a sign of life after which another run is taken for dead"""
