"""Operation → what serves it. An operation of the model that is not here answers an error that says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from moyai.nifcloud_front.calls import account_operations as account
from moyai.nifcloud_front.calls import address_operations as addresses
from moyai.nifcloud_front.calls import balancer_operations as balancers
from moyai.nifcloud_front.calls import disk_operations as disks
from moyai.nifcloud_front.calls import elastic_balancer_operations as elastic
from moyai.nifcloud_front.calls import group_operations as groups
from moyai.nifcloud_front.calls import instance_operations as instances
from moyai.nifcloud_front.calls import network_operations as networks
from moyai.nifcloud_front.calls.call import ApiCall, Later, Values

Handler = Callable[[ApiCall], Values | Later]

HANDLERS: Mapping[str, Handler] = {
    "RunInstances": instances.run_instances,
    "DescribeInstances": instances.describe_instances,
    "DescribeInstanceAttribute": instances.describe_instance_attribute,
    "StartInstances": instances.start_instances,
    "StopInstances": instances.stop_instances,
    "RebootInstances": instances.reboot_instances,
    "TerminateInstances": instances.terminate_instances,
    "ModifyInstanceAttribute": instances.modify_instance_attribute,
    "CreateVolume": disks.create_volume,
    "AttachVolume": disks.attach_volume,
    "DetachVolume": disks.detach_volume,
    "DescribeVolumes": disks.describe_volumes,
    "ExtendVolumeSize": disks.extend_volume_size,
    "DeleteVolume": disks.delete_volume,
    "ModifyVolumeAttribute": disks.modify_volume_attribute,
    "CreateSecurityGroup": groups.create_security_group,
    "DescribeSecurityGroups": groups.describe_security_groups,
    "UpdateSecurityGroup": groups.update_security_group,
    "DeleteSecurityGroup": groups.delete_security_group,
    "AuthorizeSecurityGroupIngress": groups.authorize_security_group_ingress,
    "RevokeSecurityGroupIngress": groups.revoke_security_group_ingress,
    "RegisterInstancesWithSecurityGroup": groups.register_instances,
    "DeregisterInstancesFromSecurityGroup": groups.deregister_instances,
    "NiftyCreatePrivateLan": networks.create_private_lan,
    "NiftyDescribePrivateLans": networks.describe_private_lans,
    "NiftyModifyPrivateLanAttribute": networks.modify_private_lan,
    "NiftyDeletePrivateLan": networks.delete_private_lan,
    "NiftyCreateRouter": networks.create_router,
    "NiftyDescribeRouters": networks.describe_routers,
    "NiftyDeleteRouter": networks.delete_router,
    "AllocateAddress": addresses.allocate_address,
    "DescribeAddresses": addresses.describe_addresses,
    "AssociateAddress": addresses.associate_address,
    "DisassociateAddress": addresses.disassociate_address,
    "ReleaseAddress": addresses.release_address,
    "NiftyModifyAddressAttribute": addresses.modify_address,
    "CreateKeyPair": account.create_key_pair,
    "ImportKeyPair": account.import_key_pair,
    "DescribeKeyPairs": account.describe_key_pairs,
    "DeleteKeyPair": account.delete_key_pair,
    "NiftyModifyKeyPairAttribute": account.modify_key_pair,
    "DescribeImages": account.describe_images,
    "DescribeAvailabilityZones": account.describe_zones,
    "DescribeRegions": account.describe_regions,
    "CreateLoadBalancer": balancers.create_balancer,
    "RegisterPortWithLoadBalancer": balancers.register_port,
    "ConfigureHealthCheck": balancers.configure_health_check,
    "SetFilterForLoadBalancer": balancers.set_filter,
    "RegisterInstancesWithLoadBalancer": balancers.register_instances_with_balancer,
    "DeregisterInstancesFromLoadBalancer": balancers.deregister_instances_from_balancer,
    "DescribeLoadBalancers": balancers.describe_balancers,
    "UpdateLoadBalancer": balancers.update_balancer,
    "DeleteLoadBalancer": balancers.delete_balancer,
    "NiftyCreateElasticLoadBalancer": elastic.create_elastic_balancer,
    "NiftyRegisterPortWithElasticLoadBalancer": elastic.register_elastic_port,
    "NiftyConfigureElasticLoadBalancerHealthCheck": elastic.configure_elastic_health_check,
    "NiftyRegisterInstancesWithElasticLoadBalancer": elastic.register_elastic_instances,
    "NiftyDeregisterInstancesFromElasticLoadBalancer": elastic.deregister_elastic_instances,
    "NiftyModifyElasticLoadBalancerAttributes": elastic.modify_elastic_balancer,
    "NiftyUpdateElasticLoadBalancer": elastic.update_elastic_balancer,
    "NiftyDescribeElasticLoadBalancers": elastic.describe_elastic_balancers,
    "NiftyDeleteElasticLoadBalancer": elastic.delete_elastic_balancer,
}
