"""What moyai is compared with and checked by: another cloud controller manager, and the tests of another OpenStack client."""
